/* The commands that access the arena, at any voltage. The request's body was checked before: see check_pages in core.c. */
#ifndef WEAKCELL_ARENA_H
#define WEAKCELL_ARENA_H

#include "core.h"

void wc_write_page(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_read_page(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_page_crcs(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_fill(wc_core *core, wc_reply *reply, const uint8_t *body);
void wc_compare(wc_core *core, wc_reply *reply, const uint8_t *body);

#endif
