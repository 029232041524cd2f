#include "core.h"
#include "arena.h"
#include "crc32.h"
#include "infer.h"
#include "low.h"
#include "pattern.h"
#include "reply.h"

enum { UNSTORED = 48 }; /* room for a reply that is not stored: HELLO's, or a refusal; with its CRC */

static void send(wc_core *core, wc_reply *reply)
{
    core->board->keep_alive(); /* the CRC takes as long as eleven bytes on the line */
    wc_encode(reply->content, reply->length, core->board->send_byte);
}

WC_AT_NOMINAL static void info(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    const wc_board *board = core->board;
    (void)body;
    uint32_t words = (uint32_t)(board->image_end - board->image);
    wc_append_le(reply, board->time_us(), 4);
    wc_append_le(reply, board->boot_reason(), 4);
    wc_append_le(reply, wc_crc_words(board->image, words), 4);
    wc_append_le(reply, 4 * words, 4);
    wc_append_le(reply, board->regulator_code(), 1);
    wc_append_le(reply, board->regulator_ok(), 1);
    wc_append_le(reply, core->pulses, 4);
    wc_append_bytes(reply, &core->decoder.counters, 12);
    wc_append_bytes(reply, &core->numbers, 12);
    if (core->version < 2)
        return;
    wc_append_le(reply, board->count(), 4);
    wc_append_le(reply, board->temperature(), 2);
}

static const struct {
    uint8_t command;
    uint16_t body;
    wc_command_fn *act;
} commands[] = {
    {WC_INFO, 0, info}, {WC_WRITE, 2 + WC_PAGE, wc_write_page}, {WC_READ, 2, wc_read_page}, {WC_CRCS, 3, wc_page_crcs},
    {WC_FILL, 9, wc_fill}, {WC_COMPARE, 13, wc_compare}, {WC_PULSE, 5, wc_pulse_command}, {WC_SLEEP, 5, wc_sleep_command},
    {WC_CPU_PULSE, 0, wc_do_nothing},
#ifdef WC_LARGE
    {WC_INFER, 8, wc_infer}, {WC_HAND_OVER, 4, wc_hand_over_command}, {WC_HANDED_BACK, 0, wc_handed_back},
#endif
};
enum { COMMANDS = sizeof commands / sizeof commands[0], LOW_BODY = 5 };

static bool pages_exist(const wc_core *core, uint32_t first, uint32_t count)
{
    uint32_t pages = core->board->arena_bytes / WC_PAGE;
    return count > 0 && first < pages && count <= pages - first;
}

/* Status of a request for a voltage. No code above nominal is ever set. SLEEP needs a time after which it wakes. */
static uint8_t check_voltage(const wc_core *core, uint8_t command, const uint8_t *body)
{
    uint32_t dwell_us = wc_get_le(body + 1, 4);
    if (body[0] > core->board->nominal_code || body[0] < core->board->minimum_code)
        return WC_VOLTAGE_REFUSED;
    return dwell_us > WC_MAX_DWELL_US || (command == WC_SLEEP && dwell_us == 0) ? WC_OUT_OF_RANGE : WC_OK;
}

static uint8_t check_pages(const wc_core *core, uint8_t command, const uint8_t *body)
{
    uint32_t first = wc_get_le(body, 2);
    bool valid;
    if (command == WC_READ || command == WC_WRITE)
        valid = pages_exist(core, first, 1);
    else if (command == WC_CRCS)
        valid = body[2] <= WC_MAX_CRCS && pages_exist(core, first, body[2]);
    else
        valid = (body[4] & ~WC_INVERTED) < WC_PATTERNS && pages_exist(core, first, wc_get_le(body + 2, 2));
    return valid ? WC_OK : WC_OUT_OF_RANGE;
}

/* Execute a request. Everything is checked before anything is touched. */
static void execute(wc_core *core, wc_reply *reply, uint8_t requested, const uint8_t *body, uint16_t length)
{
    uint8_t command = requested & (uint8_t)~WC_LOW;
    bool low = command != requested || command == WC_CPU_PULSE;
    bool arena = command >= WC_WRITE && command <= WC_COMPARE;
    uint16_t prefix = low ? LOW_BODY : 0;
    unsigned index = 0;
    while (index < COMMANDS && commands[index].command != command)
        index++;
    uint8_t refusal = WC_OK;
    if (index == COMMANDS || (command != requested && !arena) || (command == WC_SLEEP && core->board->sleep == 0))
        refusal = WC_UNKNOWN;
    else if (length != prefix + commands[index].body)
        refusal = WC_BAD_LENGTH;
    if (refusal == WC_OK && (low || commands[index].body == LOW_BODY)) /* a voltage and a dwell */
        refusal = check_voltage(core, command, body);
#ifdef WC_LARGE
    if (refusal == WC_OK && command >= WC_HAND_OVER)
        refusal = wc_check_hand_over(core, command, body);
#endif
    if (refusal == WC_OK && arena)
        refusal = check_pages(core, command, body + prefix);
    if (refusal != WC_OK)
        wc_refuse_request(reply, refusal);
    else if (low)
        wc_run_while_low(core, reply, body, (uint16_t)(WC_HEADER + length), commands[index].act);
    else
        commands[index].act(core, reply, body);
}

/* --- sessions and order ----------------------------------------------------------------------------------------------------- */

WC_AT_NOMINAL static uint32_t capabilities(const wc_board *board)
{
    uint32_t all = WC_CAN_RETENTION | WC_CAN_COMPARE | WC_CAN_CRCS | WC_CAN_READ_LOW | WC_CAN_WRITE_LOW | WC_CAN_COUNT |
                   WC_CAN_CPU_PULSE;
#ifdef WC_LARGE
    all |= WC_CAN_INFER | (board->hand_over ? WC_CAN_HAND_OVER : 0u);
#endif
    return all | (board->sleep ? WC_CAN_SLEEP : 0u) | (board->from_flash ? WC_FROM_FLASH : 0u);
}

WC_AT_NOMINAL static void hello(wc_core *core, const uint8_t *body, uint16_t length)
{
    const wc_board *board = core->board;
    uint8_t content[UNSTORED];
    wc_reply answer, *reply = &answer;
    uint32_t nonce = length == 5 ? wc_get_le(body + 1, 4) : 0;
    bool spoken = length == 5 && body[0] >= WC_OLDEST && body[0] <= WC_VERSION;
    if (spoken && (core->hellos == 0 || nonce != core->nonce || body[0] != core->version)) {
        uint32_t crc = WC_CRC_START, now = board->time_us();
        core->nonce = nonce;
        core->version = body[0];
        core->hellos++;
        for (int i = 0; i < 32; i += 8) {
            crc = wc_crc_byte(crc, (uint8_t)(nonce >> i));
            crc = wc_crc_byte(crc, (uint8_t)(core->hellos >> i));
            crc = wc_crc_byte(crc, (uint8_t)(now >> i));
        }
        core->token = crc | 1u; /* never 0 */
        core->next = 1;
        for (unsigned i = 0; i < WC_WINDOW; i++)
            core->replies[i].reply.length = 0;
    }
    wc_begin_reply(reply, content, WC_HELLO, core->token, 0);
    if (length != 5) {
        wc_refuse_request(reply, WC_BAD_LENGTH);
    } else if (!spoken) {
        wc_refuse_request(reply, WC_BAD_VERSION);
        wc_append_le(reply, WC_VERSION, 1);
    } else {
        wc_append_le(reply, core->version, 1);
        wc_append_le(reply, nonce, 4);
        wc_append_le(reply, board->chip, 1);
        wc_append_le(reply, capabilities(board), 4);
        wc_append_le(reply, WC_WINDOW, 1);
        wc_append_le(reply, board->arena_address, 4);
        wc_append_le(reply, board->arena_bytes, 4);
        wc_append_le(reply, board->nominal_code, 1);
        wc_append_le(reply, board->minimum_code, 1);
        wc_append_le(reply, board->boot_reason(), 4);
    }
    send(core, reply);
}

/* Refuse a request whose number was not executed; the reply is not stored. */
WC_AT_NOMINAL static void refuse_unexecuted(wc_core *core, uint8_t command, uint32_t token, uint32_t number, uint8_t status)
{
    uint8_t content[UNSTORED];
    wc_reply answer;
    wc_begin_reply(&answer, content, command, token, number);
    wc_refuse_request(&answer, status);
    if (status == WC_GAP)
        wc_append_le(&answer, core->next, 4);
    send(core, &answer);
}

static void handle(wc_core *core, const uint8_t *content, uint16_t length)
{
    if (length < WC_HEADER)
        return;
    uint8_t command = content[0];
    uint32_t token = wc_get_le(content + 1, 4), number = wc_get_le(content + 5, 4);
    if (command == WC_HELLO) {
        hello(core, content + WC_HEADER, (uint16_t)(length - WC_HEADER));
        return;
    }
    if (core->token == 0 || token != core->token) {
        refuse_unexecuted(core, command, token, number, WC_BAD_SESSION);
        return;
    }
    wc_stored_reply *stored = &core->replies[number % WC_WINDOW];
    wc_reply *reply = &stored->reply;
    if (number == core->next) {
        wc_begin_reply(reply, stored->room, command, token, number);
        execute(core, reply, command, content + WC_HEADER, (uint16_t)(length - WC_HEADER));
        core->next++;
        send(core, reply);
#ifdef WC_LARGE
        wc_hand_over(core);
#endif
    } else if (number > core->next) {
        core->numbers.gaps++;
        refuse_unexecuted(core, command, token, number, WC_GAP);
    } else if (core->next - number <= WC_WINDOW && reply->length != 0) {
        core->numbers.repeats++;
        send(core, reply);
    } else {
        core->numbers.stale++;
    }
}

void wc_wake(wc_core *core, const wc_pulse *result)
{
    wc_reply *reply = &core->replies[core->next % WC_WINDOW].reply;
    const uint8_t *request = core->decoder.bytes;
    bool own = wc_content_intact(&core->decoder, WC_HEADER + LOW_BODY);
    reply->length = WC_REPLY_HEADER;
    wc_append_record(core, reply, request[WC_HEADER], result);
    wc_append_le(reply, own, 1);
    core->next++;
    send(core, reply);
    wc_reset_decoder(&core->decoder);
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
