/* Numbers in requests and replies: little endian. */
#ifndef WEAKCELL_REPLY_H
#define WEAKCELL_REPLY_H

#include "core.h"

uint32_t wc_get(const uint8_t *from, int bytes);
void wc_add(wc_reply *reply, uint32_t value, int bytes);
void wc_begin(wc_reply *reply, uint8_t command, uint32_t token, uint32_t number);
void wc_refuse(wc_reply *reply, uint8_t status);

/* The sum of what the reply holds now: equal to reply->sum unless it changed since it was added. */
uint32_t wc_sum(const wc_reply *reply);

#endif
