/* What the two Picos share: register access, clocks, UART 0 on GPIO 0 (TX) and 1 (RX), the watchdog and the loop.
 * `CHIP/chip.h` has the addresses; `CHIP/chip.c` the regulator and what else only one of them has. */
#ifndef WEAKCELL_PICO_H
#define WEAKCELL_PICO_H

#include "../core/core.h"

#define REG(address) (*(volatile uint32_t *)(address))
#define SET(address) REG((address) + 0x2000u)
#define CLEAR(address) REG((address) + 0x3000u)

#define BAUD 921600u
#define PERIPHERAL_HZ 48000000u
#define VECTOR_MAGIC 0xb007c0d3u /* the boot ROM jumps where the three words behind it say */

enum { NOMINAL = 11 }; /* regulator code of 1.10 V on both chips; nothing above it is ever set */

/* --- from the chip --- */
extern const wc_board chip_board;
void chip_restore(void);               /* nominal voltage, first thing after any reset */
void chip_set(uint32_t code);          /* the last door: whatever was asked for, at most nominal */
uint8_t chip_code(void);
uint8_t chip_ok(void);
uint32_t chip_brown_out(uint32_t next); /* sets brown-out detection; what it was before */
uint32_t chip_boot_reason(void);
void chip_start(void);                 /* what only this chip needs, when the clocks run */
bool chip_woke(uint32_t *state, wc_pulse *result); /* out of a sleep; state: the CRC of `bss` that was kept outside SRAM */

/* --- to the chip --- */
extern wc_core core;
void put(uint8_t byte);
void flush(void);                      /* wait until the last bit has left: clocks may change then */
void alive(void);                      /* feed the watchdog, and take what the UART has received */
uint32_t time_us(void);
void start_anew(uint32_t bits);        /* into reset and out again: the boot ROM, or the run before, may have used them */
void vector(uint32_t address, void (*to)(void)); /* four words from which the boot ROM takes its next step */
uint32_t quiet(void);                  /* before the voltage falls: slow clock, no brown-out detection; what that was before */
void lower(uint8_t code, uint32_t dwell_us, wc_pulse *result);
void restore(wc_pulse *result);
void settle(uint32_t brown_out, uint32_t ended, wc_pulse *result); /* after nominal was set */

/* In the image's own few KB, from the linker script. */
extern uint32_t image_start[], image_end[], bss_start[], bss_end[], stack_top[];
void entry(void);

#endif
