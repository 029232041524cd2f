/* The firmware's core as a library for the tests: an arena in ordinary memory, a regulator that is a variable. */
#include "../../firmware/core/core.h"
#include "../../firmware/core/crc32.h"
#include "../../firmware/core/pattern.h"

#define PAGES 16

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

static void pulse(uint8_t low, uint32_t dwell_us, wc_pulse *result)
{
    *result = (wc_pulse){low, 1, code, 1, dwell_us};
}

void native_start(void)
{
    board = (wc_board){255, 11, 0, 0, arena, sizeof arena, 0, sizeof image, image, put, time_us, regulator_code, regulator_ok, alive, pulse};
    wc_start(&core, &board);
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
