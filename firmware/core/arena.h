/* The commands that touch the arena, at any voltage. Their bodies have been checked: see wc_objection. */
#ifndef WEAKCELL_ARENA_H
#define WEAKCELL_ARENA_H

#include "core.h"

void wc_write_page(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_read_page(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_page_crcs(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_fill(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_compare(wc_core *core, wc_reply *reply, const uint8_t *body);

#endif
