/* What the two Picos share: register access, UART 0 on GPIO 0 (TX) and 1 (RX), and the loop. `CHIP/chip.h` has the addresses. */
#ifndef WEAKCELL_PICO_H
#define WEAKCELL_PICO_H

#include "../core/core.h"

#define REG(address) (*(volatile uint32_t *)(address))
#define SET(address) REG((address) + 0x2000u)
#define CLEAR(address) REG((address) + 0x3000u)

#define BAUD 921600u
#define PERIPHERAL_HZ 48000000u

extern const wc_board chip_board;
extern wc_core core;

void put(uint8_t byte);
void flush(void);            /* wait until the last bit has left: clocks may change then */
void chip_start(void);       /* clocks, resets, pads */
void chip_restore(void);     /* nominal voltage, first thing after any reset */
void chip_alive(void);       /* feed the watchdog, and take what the UART has received */
uint32_t chip_boot_reason(void);

/* In the image's own few KB, from the linker script. */
extern uint32_t image_start[], image_end[], bss_start[], bss_end[], stack_top[];
void entry(void);

#endif
