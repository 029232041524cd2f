/* RP2040 (Pico): addresses. Sources: RP2040 data sheet and the register headers of pico-sdk 2.2.0. */
#ifndef WEAKCELL_CHIP_H
#define WEAKCELL_CHIP_H

#define CLOCKS 0x40008000u
#define CHIP_NAME "RP2040"
#define USB_PRODUCT 0x000au
#define CLK_USB_CTRL 0x54u
#define CLK_ADC_CTRL 0x60u
#define CLK_RESUS_CTRL 0x78u
#define FC0_REF_KHZ 0x80u
#define FC0_INTERVAL 0x90u
#define FC0_SRC 0x94u /* then status and result */
#define RESETS 0x4000c000u
#define RESET_PLL_USB (1u << 13)
#define RESET_USB (1u << 24)
#define PSM_WDSEL 0x40010008u
#define PSM_ALL_BUT_OSCILLATORS 0x0001fffcu
#define IO_BANK0 0x40014000u
#define XOSC 0x40024000u
#define PLL_USB 0x4002c000u
#define UART0 0x40034000u
#define ADC 0x4004c000u
#define TIMER0 0x40054000u
#define WATCHDOG 0x40058000u
#define ROSC 0x40060000u
#define SCRATCH0 0x0cu
#define SCRATCH4 0x1cu
#define VREG_AND_CHIP_RESET 0x40064000u
#define REGULATOR VREG_AND_CHIP_RESET
#define CODE_MASK 15u
#define DMA 0x50000000u
#define DMA_CHAIN 11
#define DMA_PACE 15
#define DMA_QUIET (1u << 21)
#define DMA_TIMER0 0x420u
#define DMA_TRIGGER 0x430u
#define DMA_ABORT 0x444u
#define DMA_IRQ0 (1u << 11)
#define NVIC_ENABLE 0xe000e100u
#define NVIC_UNPEND 0xe000e280u

#endif
