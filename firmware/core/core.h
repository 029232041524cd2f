/* The protocol of ../PROTOCOL.md. Feed it every received byte; it replies through the board's send_byte. */
#ifndef WEAKCELL_CORE_H
#define WEAKCELL_CORE_H

#include "board.h"
#include "frame.h"

#define WC_OLDEST 1u /* versions of the protocol that HELLO accepts: from this one */
#define WC_VERSION 2u
#define WC_WINDOW 4u
#define WC_PAGE 256u
#define WC_MAX_CRCS 64u
#define WC_MAX_FLIPS 60u
#define WC_MAX_DWELL_US 4000000u
#define WC_MAX_WINDOW_MS 120000u

enum { WC_HELLO = 1, WC_INFO, WC_WRITE, WC_READ, WC_CRCS, WC_FILL, WC_COMPARE, WC_PULSE, WC_SLEEP, WC_CPU_PULSE, WC_INFER,
       WC_HAND_OVER, WC_HANDED_BACK };
enum { WC_LOW = 0x40 }; /* added to WRITE, READ, CRCS, FILL, COMPARE: execute while the voltage is low */
enum { WC_OK, WC_BAD_LENGTH, WC_UNKNOWN, WC_OUT_OF_RANGE, WC_VOLTAGE_REFUSED, WC_GAP, WC_BAD_SESSION, WC_BAD_VERSION, WC_NOT_ENTERED, WC_TOO_LONG };
enum {
    WC_CAN_RETENTION = 1u << 0,
    WC_CAN_COMPARE = 1u << 1,
    WC_CAN_CRCS = 1u << 2,
    WC_CAN_READ_LOW = 1u << 3,
    WC_CAN_WRITE_LOW = 1u << 4,
    WC_CAN_SLEEP = 1u << 5,
    WC_CAN_COUNT = 1u << 6,
    WC_CAN_CPU_PULSE = 1u << 7,
    WC_FROM_FLASH = 1u << 8,
    WC_CAN_INFER = 1u << 9,
    WC_CAN_HAND_OVER = 1u << 10,
};

enum { WC_HEADER = 9, WC_REPLY_HEADER = 10, WC_RECORD_1 = 18, WC_RECORD_2 = 32 };

typedef struct {
    uint16_t length;
    uint32_t sum;               /* sum of (1 + position) * byte; shows a byte that changed while the voltage was low */
    uint8_t *content;           /* `room`, or a shorter buffer for a reply that is not stored */
} wc_reply;

typedef struct {
    wc_reply reply;
    uint8_t room[WC_RAW];
} wc_stored_reply;

typedef struct {
    const wc_board *board;
    wc_decoder decoder;
    uint32_t nonce, token, next; /* the session, and the number to execute next */
    uint32_t hellos, pulses;
#ifdef WC_LARGE
    uint32_t window_ms;          /* of a HAND_OVER whose reply is not sent yet; 0: none */
    wc_pulse handed_back;        /* what happened during the last one */
#endif
    struct {
        uint32_t gaps, repeats, stale;
    } numbers;                  /* requests that were not executed, by why */
    uint8_t version;             /* of the session */
    wc_stored_reply replies[WC_WINDOW]; /* to the last four numbers: a repeated request gets its reply again and is never executed twice */
} wc_core;

/* Reset everything; there is no session then. */
void wc_start(wc_core *core, const wc_board *board);

/* Take one received byte; execute the request that it ends. */
void wc_feed(wc_core *core, uint8_t byte);

/* Reply to SLEEP after waking. `core` must be unchanged since the request. */
void wc_wake(wc_core *core, const wc_pulse *result);

#endif
