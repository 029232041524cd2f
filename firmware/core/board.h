/* What a chip gives to the core. No addresses here: `board/` fills this record in. */
#ifndef WEAKCELL_BOARD_H
#define WEAKCELL_BOARD_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint8_t low_code;    /* regulator register while low */
    uint8_t low_ok;      /* regulator said "output good" while low */
    uint8_t after_code;  /* regulator register after nominal was restored */
    uint8_t after_ok;
    uint32_t dwell_us;   /* measured by the board's timer, from the write of the low code to the write of the nominal one */
} wc_pulse;

typedef struct {
    uint8_t chip;           /* 1 RP2040, 2 RP2350, 255 a native build */
    uint8_t nominal_code;   /* nothing above it is ever set */
    uint8_t minimum_code;
    bool from_flash;        /* a reset copies the image from flash again */
    uint32_t arena_address; /* for the report only */
    volatile uint32_t *arena;
    uint32_t arena_bytes;   /* a multiple of 256 */
    uint32_t boot_reason;
    uint32_t image_bytes;   /* of the code, whose CRC is reported */
    const volatile uint32_t *image;
    void (*put)(uint8_t byte);
    uint32_t (*time_us)(void);
    uint8_t (*regulator_code)(void);
    uint8_t (*regulator_ok)(void);
    void (*alive)(void);    /* called during long commands: feeds the watchdog and the receiver */
    void (*pulse)(uint8_t code, uint32_t dwell_us, wc_pulse *result); /* retention: the arena is not touched while low */
    void (*lower)(uint8_t code, uint32_t dwell_us, wc_pulse *result); /* access: low, for dwell_us before it returns ... */
    void (*restore)(wc_pulse *result);                                /* ... until this */
    void (*sleep)(uint8_t code, uint32_t dwell_us); /* retention with the core off: ends in wc_wake; returns if refused. Or none */
} wc_board;

#endif
