#include "core.h"
#include "crc32.h"
#include "pattern.h"

enum { HEADER = 9, REPLY_HEADER = 10 };

static uint32_t get(const uint8_t *from, int bytes)
{
    uint32_t value = 0;
    while (bytes-- > 0)
        value = value << 8 | from[bytes];
    return value;
}

static void add(wc_reply *reply, uint32_t value, int bytes)
{
    for (; bytes > 0; bytes--, value >>= 8)
        reply->content[reply->length++] = (uint8_t)value;
}

static void begin(wc_reply *reply, uint8_t command, uint32_t token, uint32_t number)
{
    reply->length = 0;
    add(reply, command | 0x80u, 1);
    add(reply, token, 4);
    add(reply, number, 4);
    add(reply, WC_OK, 1);
}

static void refuse(wc_reply *reply, uint8_t status)
{
    reply->length = REPLY_HEADER;
    reply->content[REPLY_HEADER - 1] = status;
}

static void send(wc_core *core, wc_reply *reply)
{
    wc_encode(reply->content, reply->length, core->board->put);
}

static uint32_t image_crc(const wc_board *board)
{
    return wc_crc_words(board->image, board->image_bytes / 4);
}

/* --- commands: each fills `reply`, whose header is there already ----------------------------------------------------------- */

static void info(wc_core *core, wc_reply *reply)
{
    const wc_board *board = core->board;
    add(reply, board->time_us(), 4);
    add(reply, board->boot_reason, 4);
    add(reply, image_crc(board), 4);
    add(reply, board->image_bytes, 4);
    add(reply, board->regulator_code(), 1);
    add(reply, board->regulator_ok(), 1);
    add(reply, core->pulses, 4);
    add(reply, core->decoder.good, 4);
    add(reply, core->decoder.damaged, 4);
    add(reply, core->decoder.oversize, 4);
    add(reply, core->gaps, 4);
    add(reply, core->repeats, 4);
    add(reply, core->stale, 4);
}

static volatile uint32_t *page(const wc_core *core, uint32_t number)
{
    return core->board->arena + number * (WC_PAGE / 4);
}

static bool in_arena(const wc_core *core, uint32_t first, uint32_t count)
{
    uint32_t pages = core->board->arena_bytes / WC_PAGE;
    return count > 0 && first < pages && count <= pages - first;
}

static void write_page(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t number = get(body, 2);
    if (!in_arena(core, number, 1)) {
        refuse(reply, WC_OUT_OF_RANGE);
        return;
    }
    volatile uint32_t *to = page(core, number);
    for (uint32_t i = 0; i < WC_PAGE / 4; i++)
        to[i] = get(body + 2 + 4 * i, 4);
    add(reply, number, 2);
}

static void read_page(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t number = get(body, 2);
    if (!in_arena(core, number, 1)) {
        refuse(reply, WC_OUT_OF_RANGE);
        return;
    }
    add(reply, number, 2);
    volatile uint32_t *from = page(core, number);
    for (uint32_t i = 0; i < WC_PAGE / 4; i++)
        add(reply, from[i], 4);
}

static void page_crcs(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t first = get(body, 2), count = body[2];
    if (count > WC_MAX_CRCS || !in_arena(core, first, count)) {
        refuse(reply, WC_OUT_OF_RANGE);
        return;
    }
    add(reply, first, 2);
    for (uint32_t i = 0; i < count; i++) {
        core->board->alive();
        add(reply, wc_crc_words(page(core, first + i), WC_PAGE / 4), 4);
    }
}

static void fill(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t first = get(body, 2), count = get(body + 2, 2), seed = get(body + 5, 4);
    uint8_t pattern = body[4];
    if (pattern >= WC_PATTERNS || !in_arena(core, first, count)) {
        refuse(reply, WC_OUT_OF_RANGE);
        return;
    }
    uint32_t end = (first + count) * (WC_PAGE / 4);
    for (uint32_t i = first * (WC_PAGE / 4); i < end; i++) {
        core->board->arena[i] = wc_pattern(pattern, seed, i);
        if (i % 64 == 0)
            core->board->alive();
    }
}

/* Differences from a pattern at cells >= start: how many, and the addresses (bits of the arena) of the first sixty. */
static void compare(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    uint32_t first = get(body, 2), count = get(body + 2, 2), seed = get(body + 5, 4), start = get(body + 9, 4);
    uint8_t pattern = body[4];
    if (pattern >= WC_PATTERNS || !in_arena(core, first, count)) {
        refuse(reply, WC_OUT_OF_RANGE);
        return;
    }
    uint32_t total = 0, listed = 0, end = (first + count) * (WC_PAGE / 4);
    reply->length = REPLY_HEADER + 5;
    for (uint32_t i = first * (WC_PAGE / 4); i < end; i++) {
        uint32_t differs = core->board->arena[i] ^ wc_pattern(pattern, seed, i);
        if (i < start / 32)
            differs = 0;
        else if (i == start / 32)
            differs &= 0xffffffffu << (start % 32);
        for (uint32_t bit = 0; differs != 0; bit++, differs >>= 1) {
            if (!(differs & 1))
                continue;
            total++;
            if (listed < WC_MAX_FLIPS) {
                add(reply, i * 32 + bit, 4);
                listed++;
            }
        }
        if (i % 64 == 0)
            core->board->alive();
    }
    uint16_t length = reply->length;
    reply->length = REPLY_HEADER;
    add(reply, total, 4);
    add(reply, listed, 1);
    reply->length = length;
}

static void pulse(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    const wc_board *board = core->board;
    uint8_t code = body[0];
    uint32_t dwell_us = get(body + 1, 4);
    if (code > board->nominal_code || code < board->minimum_code) {
        refuse(reply, WC_VOLTAGE_REFUSED);
        return;
    }
    if (dwell_us > WC_MAX_DWELL_US) {
        refuse(reply, WC_OUT_OF_RANGE);
        return;
    }
    wc_pulse result = {0};
    core->pulses++;
    board->pulse(code, dwell_us, &result);
    add(reply, code, 1);
    add(reply, result.low_code, 1);
    add(reply, result.low_ok, 1);
    add(reply, result.after_code, 1);
    add(reply, result.after_ok, 1);
    add(reply, result.dwell_us, 4);
    add(reply, image_crc(board), 4);
    add(reply, core->pulses, 4);
}

static const struct {
    uint16_t body;
    uint8_t command;
} lengths[] = {{0, WC_INFO}, {2 + WC_PAGE, WC_WRITE}, {2, WC_READ}, {3, WC_CRCS}, {9, WC_FILL}, {13, WC_COMPARE}, {5, WC_PULSE}};

static void execute(wc_core *core, wc_reply *reply, uint8_t command, const uint8_t *body, uint16_t length)
{
    unsigned known = 0;
    while (known < sizeof lengths / sizeof lengths[0] && lengths[known].command != command)
        known++;
    if (known == sizeof lengths / sizeof lengths[0])
        refuse(reply, WC_UNKNOWN);
    else if (lengths[known].body != length)
        refuse(reply, WC_BAD_LENGTH);
    else if (command == WC_INFO)
        info(core, reply);
    else if (command == WC_WRITE)
        write_page(core, reply, body);
    else if (command == WC_READ)
        read_page(core, reply, body);
    else if (command == WC_CRCS)
        page_crcs(core, reply, body);
    else if (command == WC_FILL)
        fill(core, reply, body);
    else if (command == WC_COMPARE)
        compare(core, reply, body);
    else
        pulse(core, reply, body);
}

/* --- sessions and order ----------------------------------------------------------------------------------------------------- */

static void hello(wc_core *core, const uint8_t *body, uint16_t length)
{
    const wc_board *board = core->board;
    wc_reply *reply = &core->other;
    uint32_t nonce = length == 5 ? get(body + 1, 4) : 0;
    if (length == 5 && body[0] == WC_VERSION && (core->hellos == 0 || nonce != core->nonce)) {
        uint32_t crc = WC_CRC_START, now = board->time_us();
        core->nonce = nonce;
        core->hellos++;
        for (int i = 0; i < 32; i += 8) {
            crc = wc_crc_byte(crc, (uint8_t)(nonce >> i));
            crc = wc_crc_byte(crc, (uint8_t)(core->hellos >> i));
            crc = wc_crc_byte(crc, (uint8_t)(now >> i));
        }
        core->token = crc | 1u; /* never 0 */
        core->next = 1;
        for (unsigned i = 0; i < WC_WINDOW; i++)
            core->replies[i].length = 0;
    }
    begin(reply, WC_HELLO, core->token, 0);
    if (length != 5) {
        refuse(reply, WC_BAD_LENGTH);
    } else if (body[0] != WC_VERSION) {
        refuse(reply, WC_BAD_VERSION);
        add(reply, WC_VERSION, 1);
    } else {
        add(reply, WC_VERSION, 1);
        add(reply, nonce, 4);
        add(reply, board->chip, 1);
        add(reply, WC_CAN_RETENTION | WC_CAN_COMPARE | WC_CAN_CRCS, 4);
        add(reply, WC_WINDOW, 1);
        add(reply, board->arena_address, 4);
        add(reply, board->arena_bytes, 4);
        add(reply, board->nominal_code, 1);
        add(reply, board->minimum_code, 1);
        add(reply, board->boot_reason, 4);
    }
    send(core, reply);
}

static void handle(wc_core *core, const uint8_t *content, uint16_t length)
{
    if (length < HEADER)
        return;
    uint8_t command = content[0];
    uint32_t token = get(content + 1, 4), number = get(content + 5, 4);
    if (command == WC_HELLO) {
        hello(core, content + HEADER, (uint16_t)(length - HEADER));
        return;
    }
    if (core->token == 0 || token != core->token) {
        begin(&core->other, command, token, number);
        refuse(&core->other, WC_BAD_SESSION);
        send(core, &core->other);
        return;
    }
    wc_reply *reply = &core->replies[number % WC_WINDOW];
    if (number == core->next) {
        begin(reply, command, token, number);
        execute(core, reply, command, content + HEADER, (uint16_t)(length - HEADER));
        core->next++;
        send(core, reply);
    } else if (number > core->next) {
        core->gaps++;
        begin(&core->other, command, token, number);
        refuse(&core->other, WC_GAP);
        add(&core->other, core->next, 4);
        send(core, &core->other);
    } else if (core->next - number <= WC_WINDOW && reply->length != 0) {
        core->repeats++;
        send(core, reply);
    } else {
        core->stale++;
    }
}

void wc_start(wc_core *core, const wc_board *board)
{
    uint8_t *bytes = (uint8_t *)core;
    for (unsigned i = 0; i < sizeof *core; i++)
        bytes[i] = 0;
    core->board = board;
}

void wc_feed(wc_core *core, uint8_t byte)
{
    int length = wc_decode(&core->decoder, byte);
    if (length >= 0)
        handle(core, core->decoder.bytes, (uint16_t)length);
}
