/* RP2350 (Pico 2): addresses. Sources: RP2350 data sheet and the register headers of pico-sdk 2.2.0. */
#ifndef WEAKCELL_CHIP_H
#define WEAKCELL_CHIP_H

#define CHIP_NAME "RP2350"
#define USB_PRODUCT 0x0009u
#define SYSINFO 0x40000000u
#define SYSCFG 0x40008000u
#define CLOCKS 0x40010000u
#define CLK_USB_CTRL 0x60u
#define CLK_ADC_CTRL 0x6cu
#define CLK_RESUS_CTRL 0x84u
#define FC0_REF_KHZ 0x8cu
#define FC0_INTERVAL 0x9cu
#define FC0_SRC 0xa0u /* then status and result */
#define PSM_WDSEL 0x40018008u
#define PSM_ALL_BUT_OSCILLATORS 0x01fffff3u
#define RESETS 0x40020000u
#define RESET_PLL_USB (1u << 15)
#define RESET_USB (1u << 28)
#define IO_BANK0 0x40028000u
#define PADS_BANK0 0x40038000u
#define XOSC 0x40048000u
#define PLL_USB 0x40058000u
#define ACCESSCTRL 0x40060000u
#define UART0 0x40070000u
#define ADC 0x400a0000u
#define TIMER0 0x400b0000u
#define WATCHDOG 0x400d8000u
#define SCRATCH0 0x0cu
#define SCRATCH4 0x1cu
#define ROSC 0x400e8000u
#define POWMAN 0x40100000u
#define TICKS 0x40108000u
#define OTP_DATA 0x40130000u
#define REGULATOR (POWMAN + 0x0cu)
#define CODE_MASK 31u
#define DMA 0x50000000u
#define DMA_CHAIN 13
#define DMA_PACE 17
#define DMA_QUIET (1u << 23)
#define DMA_TIMER0 0x440u
#define DMA_TRIGGER 0x450u
#define DMA_ABORT 0x464u
#define DMA_IRQ0 (1u << 10)
#define NVIC_ENABLE 0xe000e100u
#define NVIC_UNPEND 0xe000e280u

#endif
