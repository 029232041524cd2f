/* What a board gives to the core: functions and constants. No addresses here; `board/` fills this record in. */
#ifndef WEAKCELL_BOARD_H
#define WEAKCELL_BOARD_H

#include <stdbool.h>
#include <stdint.h>

/* A function that never runs while the voltage is low. The flash image leaves it in flash, since SRAM is short. */
#ifdef WC_FLASH
#define WC_AT_NOMINAL __attribute__((section(".flash"), noinline))
#else
#define WC_AT_NOMINAL
#endif

/* Commands whose code a RAM image has no room for: INFER, HAND_OVER, HANDED_BACK. */
#if defined(WC_FLASH) || __STDC_HOSTED__
#define WC_LARGE
#endif

/* What happened to the voltage. Codes are read back from the regulator's register. The counts follow the voltage itself: they are
 * frequencies of the ring oscillator in kHz / 32, and 0 where the counter gave none. In the order of PROTOCOL.md. */
typedef struct {
    uint8_t low_code;    /* regulator code at the end of the time at low voltage */
    uint8_t low_ok;      /* 1 if the regulator reported "output good" while low */
    uint8_t after_code;  /* regulator code after nominal was restored */
    uint8_t after_ok;    /* 1 if the regulator reported "output good" then */
    uint32_t dwell_us;   /* from the write of the low code to the write of the nominal one, by the board's timer */
    uint32_t counts[3];  /* ring oscillator: at nominal voltage before, at the end of the dwell, at nominal voltage afterwards */
    uint16_t temperature; /* of the die before: sum of sixteen conversions of 12 bits */
} wc_pulse;

typedef struct {
    uint8_t chip;           /* protocol id: 1 RP2040, 2 RP2350, 255 native build */
    uint8_t nominal_code;   /* no higher code is ever set */
    uint8_t minimum_code;
    bool from_flash;        /* a reset copies the image from flash again */
    uint32_t arena_address; /* only reported */
    volatile uint32_t *arena;
    uint32_t arena_bytes;   /* a multiple of 256 */
    const volatile uint32_t *image, *image_end; /* the code; its CRC is reported */
    uint32_t (*boot_reason)(void);
    void (*send_byte)(uint8_t byte);
    uint32_t (*time_us)(void);
    uint8_t (*regulator_code)(void);
    uint8_t (*regulator_ok)(void);
    uint32_t (*count)(void);       /* frequency of the ring oscillator now, in kHz / 32; 0 if it cannot be counted */
    uint16_t (*temperature)(void); /* as in wc_pulse */
    void (*keep_alive)(void); /* called during long commands; feeds the watchdog and receives bytes */

    /* Lower the voltage for dwell_us, then restore it, without the CPU: no instruction is fetched until the voltage is back. */
    void (*pulse)(uint8_t code, uint32_t dwell_us, wc_pulse *result);

    /* Lower the voltage, wait dwell_us and return with the voltage still low. The caller accesses the arena, then calls restore. */
    void (*lower)(uint8_t code, uint32_t dwell_us, wc_pulse *result);
    void (*restore)(wc_pulse *result);

    /* May be NULL. Powers the core off at low voltage. On success execution resumes in wc_wake(); it returns only if the chip
     * refuses. */
    void (*sleep)(uint8_t code, uint32_t dwell_us);

    /* May be NULL. Let what was sent leave the line, then switch the regulator off for window_ms: whoever feeds the core sets its
     * voltage. The count while low is taken at the end of that time. */
    void (*hand_over)(uint32_t window_ms, wc_pulse *result);
} wc_board;

#endif
