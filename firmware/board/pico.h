/* Shared by all chips: register access, clocks, UART 0 on GPIO 0 (TX) and 1 (RX), the watchdog and the main loop.
 * `CHIP/chip.h` has the addresses, `CHIP/chip.c` the regulator and everything that only one chip has. */
#ifndef WEAKCELL_PICO_H
#define WEAKCELL_PICO_H

#include "../core/core.h"

#ifndef REG /* a test's own registers */
#define REG(address) (*(volatile uint32_t *)(address))
#endif
#define SET(address) REG((address) + 0x2000u)
#define CLEAR(address) REG((address) + 0x3000u)

#define BAUD 921600u
#define PERIPHERAL_HZ 48000000u
#define VECTOR_MAGIC 0xb007c0d3u /* marks a jump vector for the boot ROM; three words follow */

#define GUARD_US 2000000u         /* an access while low takes less than that */
enum { COUNT_US = 350 };          /* time for one count: 0.25 ms, and some clocks of the counter's own */
enum { SETTLE_US = 1000 };        /* the regulator's slew rate is unknown: wait after nominal was set, before anything is read */
enum { RING_OSCILLATOR = 3 };     /* FC0_SRC */
enum { COUNTER_DONE = 1u << 4 };  /* FC0_STATUS */
enum { HAND_OVER_US = 200000 };   /* from the reply until the regulator is switched off */
enum { HIGH_IMPEDANCE = 1u << 1 }; /* of the regulator's register, on both chips */
enum { NOMINAL = 11 }; /* regulator code of 1.10 V on both chips; no higher code is ever set */

/* --- each chip provides ----------------------------------------------------------------------------------------------------- */

extern const wc_board pico_chip_board;

/* Start the watchdog's tick, and prepare the chip for being reset by it; the first thing after any reset. */
void pico_chip_prepare_watchdog(void);

/* Set nominal voltage and wait for it. */
void pico_chip_set_nominal(void);

/* Set a regulator code. The last check before the register: a code above nominal sets nominal. */
void pico_chip_set_code(uint32_t code);
uint8_t pico_chip_code(void);

/* What to write into the regulator's register for a code. Also a last check. */
uint32_t pico_chip_regulator_word(uint32_t code);
uint8_t pico_chip_regulator_ok(void);

/* The same, from a copy of the regulator's register if that has it. */
uint8_t pico_chip_low_ok(uint32_t word);

/* Switch brown-out detection off, or on at the threshold that it has after a reset. */
void pico_chip_set_brown_out(bool on);
uint32_t pico_chip_boot_reason(void);

/* Start what differs between the chips, and let DMA reach the registers of a pulse; called when the clocks run. */
void pico_chip_start_peripherals(void);

/* The chip's serial number of 64 bits. Of the flash image: the RP2040 has none of its own and takes that of its flash. */
void pico_chip_read_serial(uint32_t serial[2]);

/* Of the flash image: forget what the flash's cache holds, whose cells were at the low voltage, too. */
void pico_chip_flush_cache(void);

/* Whether this start is the end of a SLEEP. state: CRC of `bss` that was kept outside SRAM. */
bool pico_chip_woke_up(uint32_t *state, wc_pulse *result);

/* --- pico.c provides -------------------------------------------------------------------------------------------------------- */

void pico_put(uint8_t byte); /* send a byte */

/* Feed the watchdog and receive bytes; serve USB if it is on. */
void pico_keep_alive(void);
uint32_t pico_time_us(void);

/* Put peripherals into reset and out again, since the boot ROM or an earlier run may have used them. */
void pico_reset_peripherals(uint32_t bits);

/* Write the four words from which the boot ROM jumps after the next reset. */
void pico_set_boot_vector(uint32_t address, void (*to)(void));

/* Count the ring oscillator for a quarter of a millisecond: kHz / 32. 0 if the counter gave nothing. */
uint32_t pico_count(void);

/* Sum of sixteen conversions of the die's temperature sensor. */
uint16_t pico_temperature(void);

/* Prepare for a low voltage: slow clock, no brown-out detection; note temperature and count. */
void pico_prepare_low(wc_pulse *result);

/* wc_board.pulse, in pulse.c. */
void pico_pulse(uint8_t code, uint32_t dwell_us, wc_pulse *result);

/* wc_board.hand_over, in pulse.c; of the flash image. */
void pico_hand_over(uint32_t window_ms, wc_pulse *result);

/* Receive and send for a time, in us; bytes from USB are dropped. */
void pico_serve_line(uint32_t us);

/* Let DMA set nominal voltage after a time, whatever the CPU does; and end that. Both in pulse.c. */
void pico_start_guard(uint32_t after_us);
void pico_end_guard(void);

/* wc_board.lower and wc_board.restore. */
void pico_lower(uint8_t code, uint32_t dwell_us, wc_pulse *result);
void pico_restore(wc_pulse *result);

/* After nominal was set: wait for the regulator, switch brown-out detection on and the clock up, fill in `result`. */
void pico_wait_regulator(wc_pulse *result);

/* --- usb.c provides, for the flash image ------------------------------------------------------------------------------------- */

/* Start the controller and connect to the bus. */
void pico_usb_start(void);

/* Do what is due: resets of the bus, requests of the host, packets that have arrived. */
void pico_usb_poll(void);

/* The next byte from the host; -1 if there is none. Only call this when there is nothing else to do: it also sends what waits. */
int pico_usb_get(void);
void pico_usb_put(uint8_t byte);

extern uint32_t pico_serial[2]; /* in pico.c */

/* From the linker script: the bounds of the image, of its zeroed data, and the end of its stack. */
extern uint32_t pico_image_start[], pico_image_end[], pico_bss_start[], pico_bss_end[], pico_stack_top[];
void pico_entry(void);

#endif
