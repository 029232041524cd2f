/* Inference by a binarized network whose weights are in the arena, at nominal voltage. PROTOCOL.md describes the program. */
#ifndef WEAKCELL_INFER_H
#define WEAKCELL_INFER_H

#include "core.h"

enum { WC_MAX_SUMS = 64 };        /* outputs of the last stage: they fit into one reply */
#define WC_MAX_INFER_US 30000000u /* an inference that takes longer is given up */

/* One stage of a program, as it lies in the arena: sums of products, the largest of each pool, thresholds. Offsets count words
 * from the arena's first. */
typedef struct {
    uint32_t input;      /* bits, or integers of 16 bits; C order: channel, row, column */
    uint32_t output;     /* bits, or sums of 32 bits, in the same order */
    uint32_t weights;    /* one bit each, 1 for +1: output channel, channel, row, column, without gaps */
    uint32_t thresholds; /* one for each output channel, then one bit each that inverts */
    uint32_t scratch;    /* one word for each output channel, then the input under the kernel */
    uint16_t channels, height, width; /* of the input */
    uint16_t outputs;                 /* output channels */
    uint16_t sum_height, sum_width;   /* before the pool */
    uint16_t out_height, out_width;
    uint8_t kernel[2], stride[2], padding[2]; /* rows, columns; padding above and to the left */
    uint8_t pool[2], pool_stride[2], pool_padding[2];
    uint8_t integers;    /* 1: the input is integers; 0: bits */
    uint8_t last;        /* 1: the output is the sums; 0: bits */
    uint16_t zero;
} wc_stage;

void wc_infer(wc_core *core, wc_reply *reply, const uint8_t *body);

#endif
