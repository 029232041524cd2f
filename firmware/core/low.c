#include "low.h"
#include "crc32.h"
#include "reply.h"

void wc_append_record(wc_core *core, wc_reply *reply, uint8_t code, const wc_pulse *result)
{
    const wc_board *board = core->board;
    wc_append_le(reply, code, 1);
    wc_append_le(reply, result->low_code, 1);
    wc_append_le(reply, result->low_ok, 1);
    wc_append_le(reply, result->after_code, 1);
    wc_append_le(reply, result->after_ok, 1);
    wc_append_le(reply, result->dwell_us, 4);
    wc_append_le(reply, wc_crc_words(board->image, board->image_bytes / 4), 4);
    wc_append_le(reply, core->pulses, 4);
}

void wc_pulse_command(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    wc_pulse result = {0};
    core->pulses++;
    core->board->pulse(body[0], wc_get_le(body + 1, 4), &result);
    wc_append_record(core, reply, body[0], &result);
}

void wc_sleep_command(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    core->pulses++;
    core->board->sleep(body[0], wc_get_le(body + 1, 4));
    core->pulses--;
    wc_refuse_request(reply, WC_NOT_ENTERED);
}

void wc_run_while_low(wc_core *core, wc_reply *reply, const uint8_t *body, uint16_t request, wc_command_fn *act)
{
    wc_pulse result = {0};
    core->pulses++;
    reply->length += WC_RECORD;
    core->board->lower(body[0], wc_get_le(body + 1, 4), &result);
    act(core, reply, body + 5);
    core->board->restore(&result);
    uint16_t length = reply->length;
    for (uint16_t i = 0; i < WC_RECORD; i++)
        reply->content[WC_REPLY_HEADER + i] = 0;
    bool own = wc_reply_sum(reply) == reply->sum && wc_content_intact(&core->decoder, request);
    reply->length = WC_REPLY_HEADER;
    wc_append_record(core, reply, body[0], &result);
    wc_append_le(reply, own, 1);
    reply->length = length;
}
