/* RP2350 (Pico 2): addresses. Sources: RP2350 data sheet and the register headers of pico-sdk 2.2.0. */
#ifndef WEAKCELL_CHIP_H
#define WEAKCELL_CHIP_H

#define CLOCKS 0x40010000u
#define CLK_RESUS_CTRL 0x84u
#define PSM_WDSEL 0x40018008u
#define PSM_ALL_BUT_OSCILLATORS 0x01fffff3u
#define RESETS 0x40020000u
#define RESET_PLL_USB (1u << 15)
#define IO_BANK0 0x40028000u
#define PADS_BANK0 0x40038000u
#define XOSC 0x40048000u
#define PLL_USB 0x40058000u
#define UART0 0x40070000u
#define TIMER0 0x400b0000u
#define WATCHDOG 0x400d8000u
#define SCRATCH4 0x1cu
#define POWMAN 0x40100000u
#define TICKS 0x40108000u

#endif
