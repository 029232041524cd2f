/* The experiments: what is done while the voltage is low. */
#ifndef WEAKCELL_LOW_H
#define WEAKCELL_LOW_H

#include "core.h"

typedef void wc_act(wc_core *core, wc_reply *reply, const uint8_t *body);

/* Retention: the arena is left alone. body: code, dwell. */
void wc_retention(wc_core *core, wc_reply *reply, const uint8_t *body);

/* Retention with the core off. Returns only if the chip would not do it; else wc_wake answers. */
void wc_sleep(wc_core *core, wc_reply *reply, const uint8_t *body);

/* Access: one command's work is done while low. body: code, dwell, then that command's own; request: bytes of the whole request. */
void wc_access_low(wc_core *core, wc_reply *reply, const uint8_t *body, uint16_t request, wc_act *act);

/* What a pulse did, and the CRC of the image now; into the place kept for it. own: the firmware's own data held. */
void wc_add_record(wc_core *core, wc_reply *reply, uint8_t code, const wc_pulse *result);

#endif
