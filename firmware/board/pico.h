/* Shared by all chips: register access, clocks, UART 0 on GPIO 0 (TX) and 1 (RX), the watchdog and the main loop.
 * `CHIP/chip.h` has the addresses, `CHIP/chip.c` the regulator and everything that only one chip has. */
#ifndef WEAKCELL_PICO_H
#define WEAKCELL_PICO_H

#include "../core/core.h"

#define REG(address) (*(volatile uint32_t *)(address))
#define SET(address) REG((address) + 0x2000u)
#define CLEAR(address) REG((address) + 0x3000u)

#define BAUD 921600u
#define PERIPHERAL_HZ 48000000u
#define VECTOR_MAGIC 0xb007c0d3u /* marks a jump vector for the boot ROM; three words follow */

enum { NOMINAL = 11 }; /* regulator code of 1.10 V on both chips; no higher code is ever set */

/* --- each chip provides ----------------------------------------------------------------------------------------------------- */

extern const wc_board pico_chip_board;

/* Set nominal voltage and wait for it; the first thing after any reset. */
void pico_chip_set_nominal(void);

/* Set a regulator code. The last check before the register: a code above nominal sets nominal. */
void pico_chip_set_code(uint32_t code);
uint8_t pico_chip_code(void);
uint8_t pico_chip_regulator_ok(void);

/* Set brown-out detection; returns the previous setting. */
uint32_t pico_chip_set_brown_out(uint32_t next);
uint32_t pico_chip_boot_reason(void);

/* Start what only this chip has; called when the clocks run. */
void pico_chip_start_peripherals(void);

/* Whether this start is the end of a SLEEP. state: CRC of `bss` that was kept outside SRAM. */
bool pico_chip_woke_up(uint32_t *state, wc_pulse *result);

/* --- pico.c provides -------------------------------------------------------------------------------------------------------- */

void pico_put(uint8_t byte); /* send a byte */


/* Feed the watchdog and receive bytes. */
void pico_keep_alive(void);
uint32_t pico_time_us(void);

/* Put peripherals into reset and out again, since the boot ROM or an earlier run may have used them. */
void pico_reset_peripherals(uint32_t bits);

/* Write the four words from which the boot ROM jumps after the next reset. */
void pico_set_boot_vector(uint32_t address, void (*to)(void));

/* Prepare for a low voltage: slow clock, no brown-out detection. Returns the previous brown-out setting. */
uint32_t pico_prepare_low(void);

/* wc_board.lower and wc_board.restore. */
void pico_lower(uint8_t code, uint32_t dwell_us, wc_pulse *result);
void pico_restore(wc_pulse *result);

/* After nominal was set at time `ended`: wait for the regulator, restore brown-out detection and clock, fill in `result`. */
void pico_wait_regulator(uint32_t brown_out, uint32_t ended, wc_pulse *result);

/* From the linker script: the bounds of the image, of its zeroed data, and the end of its stack. */
extern uint32_t pico_image_start[], pico_image_end[], pico_bss_start[], pico_bss_end[], pico_stack_top[];
void pico_entry(void);

#endif
