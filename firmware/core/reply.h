/* Build replies. All numbers in requests and replies are little endian. */
#ifndef WEAKCELL_REPLY_H
#define WEAKCELL_REPLY_H

#include "core.h"

/* Read a number of `bytes` bytes. */
uint32_t wc_get_le(const uint8_t *from, int bytes);

/* Append a number of `bytes` bytes to a reply, and add its bytes to the reply's sum. */
void wc_append_le(wc_reply *reply, uint32_t value, int bytes);

/* Append numbers as they lie in memory, which is little endian on every board. */
void wc_append_bytes(wc_reply *reply, const void *from, int bytes);

/* Start a reply in `content`: header and status OK. */
void wc_begin_reply(wc_reply *reply, uint8_t *content, uint8_t command, uint32_t token, uint32_t number);

/* Drop the body and set another status. */
void wc_refuse_request(wc_reply *reply, uint8_t status);

/* Sum of the reply's bytes as they are now. Differs from reply->sum if a byte changed after it was appended. */
uint32_t wc_reply_sum(const wc_reply *reply);

#endif
