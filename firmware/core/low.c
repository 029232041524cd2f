#include "low.h"
#include "crc32.h"
#include "reply.h"

uint16_t wc_record_length(const wc_core *core)
{
    return core->version < 2 ? WC_RECORD_1 : WC_RECORD_2;
}

void wc_append_record(wc_core *core, wc_reply *reply, uint8_t code, const wc_pulse *result)
{
    const wc_board *board = core->board;
    wc_append_le(reply, code, 1);
    wc_append_bytes(reply, &result->low_code, 8);
    wc_append_le(reply, wc_crc_words(board->image, (uint32_t)(board->image_end - board->image)), 4);
    wc_append_le(reply, core->pulses, 4);
    if (core->version >= 2)
        wc_append_bytes(reply, result->counts, 14);
}

void wc_pulse_command(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    wc_pulse result = {0};
    core->pulses++;
    core->board->pulse(body[0], wc_get_le(body + 1, 4), &result);
    wc_append_record(core, reply, body[0], &result);
}

void wc_do_nothing(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    (void)core, (void)reply, (void)body;
}

void wc_sleep_command(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    core->pulses++;
    core->board->sleep(body[0], wc_get_le(body + 1, 4));
    core->pulses--;
    wc_refuse_request(reply, WC_NOT_ENTERED);
}

#ifdef WC_LARGE
WC_AT_NOMINAL uint8_t wc_check_hand_over(const wc_core *core, uint8_t command, const uint8_t *body)
{
    if (core->board->hand_over == 0)
        return WC_UNKNOWN;
    return command == WC_HAND_OVER && wc_get_le(body, 4) - 1u >= WC_MAX_WINDOW_MS ? WC_OUT_OF_RANGE : WC_OK;
}

WC_AT_NOMINAL void wc_hand_over_command(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    (void)reply;
    core->window_ms = wc_get_le(body, 4);
}

WC_AT_NOMINAL void wc_handed_back(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    (void)body;
    wc_append_record(core, reply, core->board->nominal_code, &core->handed_back);
}

WC_AT_NOMINAL void wc_hand_over(wc_core *core)
{
    uint32_t window_ms = core->window_ms;
    if (window_ms == 0)
        return;
    core->window_ms = 0;
    core->pulses++;
    core->handed_back = (wc_pulse){0};
    core->board->hand_over(window_ms, &core->handed_back);
}
#endif

void wc_run_while_low(wc_core *core, wc_reply *reply, const uint8_t *body, uint16_t request, wc_command_fn *act)
{
    wc_pulse result = {0};
    core->pulses++;
    uint16_t record = wc_record_length(core);
    reply->length += record;
    core->board->lower(body[0], wc_get_le(body + 1, 4), &result);
    act(core, reply, body + 5);
    core->board->restore(&result);
    uint16_t length = reply->length;
    for (uint16_t i = 0; i < record; i++)
        reply->content[WC_REPLY_HEADER + i] = 0;
    bool own = wc_reply_sum(reply) == reply->sum && wc_content_intact(&core->decoder, request);
    reply->length = WC_REPLY_HEADER;
    wc_append_record(core, reply, body[0], &result);
    wc_append_le(reply, own, 1);
    reply->length = length;
}
