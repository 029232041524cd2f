/* The experiments: what is done while the voltage is low. */
#ifndef WEAKCELL_LOW_H
#define WEAKCELL_LOW_H

#include "core.h"

/* Executes a command and appends its reply body. */
typedef void wc_command_fn(wc_core *core, wc_reply *reply, const uint8_t *body);

/* PULSE, retention: nothing touches the arena. body: code, dwell. */
void wc_pulse_command(wc_core *core, wc_reply *reply, const uint8_t *body);

/* What CPU_PULSE does while the voltage is low. */
void wc_do_nothing(wc_core *core, wc_reply *reply, const uint8_t *body);

/* SLEEP, retention with the core off. Returns only if the chip refuses; otherwise wc_wake replies. body: code, dwell. */
void wc_sleep_command(wc_core *core, wc_reply *reply, const uint8_t *body);

/* HAND_OVER and HANDED_BACK, and their check. The regulator is switched off after the reply was sent, in wc_hand_over. body: window; none. */
uint8_t wc_check_hand_over(const wc_core *core, uint8_t command, const uint8_t *body);
void wc_hand_over_command(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_handed_back(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_hand_over(wc_core *core);

/* Execute a command while the voltage is low.
 * body: code, dwell, then the command's own body. request: length of the whole request, in bytes. */
void wc_run_while_low(wc_core *core, wc_reply *reply, const uint8_t *body, uint16_t request, wc_command_fn *act);

/* Length of a record in the session's version of the protocol, with its last byte. */
uint16_t wc_record_length(const wc_core *core);

/* Append the record of a pulse, all but its last byte: what happened to the voltage, and the CRC of the image now. */
void wc_append_record(wc_core *core, wc_reply *reply, uint8_t code, const wc_pulse *result);

#endif
