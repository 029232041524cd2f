/* The firmware's core as a library for tests: the arena is ordinary memory, the regulator a variable. */
#include "../../firmware/core/core.h"
#include "../../firmware/core/crc32.h"
#include "../../firmware/core/infer.h"
#include "../../firmware/core/pattern.h"
#include "../../firmware/core/reply.h"

#ifndef PAGES
#define PAGES 16
#endif

static wc_core core;
static wc_board board;
static uint32_t arena[PAGES * WC_PAGE / 4], image[4] = {1, 2, 3, 4}, now;
static uint8_t out[1 << 16], code = 11;
static uint32_t filled;

static void put(uint8_t byte)
{
    if (filled < sizeof out)
        out[filled++] = byte;
}

static uint32_t time_us(void)
{
    return now += 5;
}

static uint8_t regulator_code(void)
{
    return code;
}

static uint8_t regulator_ok(void)
{
    return 1;
}

static void alive(void)
{
}

static uint32_t count(void)
{
    return 32 * 6000;
}

static uint16_t temperature(void)
{
    return 16 * 876;
}

static uint32_t boot_reason(void)
{
    return 0;
}

static void lower(uint8_t low, uint32_t dwell_us, wc_pulse *result)
{
    *result = (wc_pulse){.low_code = low, .low_ok = 1, .dwell_us = dwell_us, .counts = {32 * 6000, 32 * (1000 + 400 * low), 32 * 6000},
                         .temperature = temperature()};
}

static void restore(wc_pulse *result)
{
    result->after_code = code;
    result->after_ok = 1;
}

static void pulse(uint8_t low, uint32_t dwell_us, wc_pulse *result)
{
    lower(low, dwell_us, result);
    restore(result);
}

void native_start(void)
{
    board = (wc_board){
        .chip = 255, .nominal_code = 11, .arena = arena, .arena_bytes = sizeof arena, .image = image, .image_end = image + 4,
        .send_byte = put, .time_us = time_us, .regulator_code = regulator_code, .regulator_ok = regulator_ok, .keep_alive = alive,
        .count = count, .temperature = temperature, .boot_reason = boot_reason,
        .pulse = pulse, .lower = lower, .restore = restore,
    };
    wc_start(&core, &board);
}

wc_core *native_core(void)
{
    return &core;
}

wc_board *native_board(void)
{
    return &board;
}

uint32_t native_feed(const uint8_t *bytes, uint32_t count, uint8_t *answer, uint32_t room)
{
    filled = 0;
    for (uint32_t i = 0; i < count; i++)
        wc_feed(&core, bytes[i]);
    uint32_t length = filled < room ? filled : room;
    for (uint32_t i = 0; i < length; i++)
        answer[i] = out[i];
    return length;
}

uint8_t *native_arena(void)
{
    return (uint8_t *)arena;
}

uint32_t native_pattern(uint8_t pattern, uint32_t seed, uint32_t index)
{
    return wc_pattern(pattern, seed, index);
}

/* INFER without its frames. Returns the number of bytes of the reply's body, or 1 if the program was refused. */
uint32_t native_infer(const uint8_t *body, uint8_t *answer)
{
    wc_stored_reply *stored = &core.replies[0];
    wc_begin_reply(&stored->reply, stored->room, WC_INFER, 0, 0);
    wc_infer(&core, &stored->reply, body);
    uint32_t length = stored->reply.length - WC_REPLY_HEADER;
    for (uint32_t i = 0; i < length; i++)
        answer[i] = stored->room[WC_REPLY_HEADER + i];
    return stored->room[WC_REPLY_HEADER - 1] == WC_OK ? length : 1;
}
