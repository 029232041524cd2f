#include "infer.h"
#include "crc32.h"
#include "reply.h"

enum { STAGE_WORDS = sizeof(wc_stage) / 4, WORDS_AT_A_TIME = 512, MAX_STAGES = 255 };

/* One inference. `work` counts words of weights since the board was last kept alive. */
typedef struct {
    const wc_board *board;
    uint32_t *arena;
    uint32_t words;   /* of the arena */
    uint32_t since_us, work;
    uint32_t inputs;  /* under the kernel: channels * kernel[0] * kernel[1] */
    uint32_t valid;   /* of them, inside the image, where this kernel lies */
    union {
        wc_stage stage;
        uint32_t stage_words[STAGE_WORDS];
    };
} inference;

/* --- checks before a stage runs: nothing outside the arena is read or written ----------------------------------------------- */

WC_AT_NOMINAL static bool fits(const inference *run, uint32_t offset, uint32_t words)
{
    return offset <= run->words && words <= run->words - offset;
}

/* Whether the product of numbers below 2^16 is one as well. The chips' smallest core has no long multiplication. */
WC_AT_NOMINAL static bool is_small(uint32_t a, uint32_t b)
{
    return a * b != 0 && a * b <= 0xffffu;
}

WC_AT_NOMINAL static bool is_valid(inference *run)
{
    const wc_stage *s = &run->stage;
    uint32_t kernel = (uint32_t)s->kernel[0] * s->kernel[1], in = (uint32_t)s->height * s->width;
    uint32_t out = (uint32_t)s->out_height * s->out_width, outputs = s->outputs;
    if (!is_small(s->channels, kernel) || !is_small(s->height, s->width) || !is_small(s->out_height, s->out_width) || outputs == 0)
        return false;
    if (s->kernel[1] > 32 || s->integers > 1 || s->last > 1 || (s->last && !(out * outputs <= WC_MAX_SUMS)))
        return false;
    run->inputs = s->channels * kernel;
    uint32_t image = s->channels * in, bits = out * outputs, scratch = s->integers ? run->inputs : 2 * ((run->inputs + 31) >> 5);
    return fits(run, s->input, s->integers ? (image + 1) >> 1 : (image >> 5) + 2) &&
           fits(run, s->output, s->last ? bits : (bits >> 5) + 1) &&
           fits(run, s->weights, (outputs * run->inputs >> 5) + 2) && /* a word more, as above: rows are read as whole words */
           (s->last || fits(run, s->thresholds, outputs + (outputs >> 5) + 1)) && fits(run, s->scratch, outputs + scratch);
}

/* --- sums ------------------------------------------------------------------------------------------------------------------- */

/* Feed the watchdog now and then. False: the inference has taken too long. */
WC_AT_NOMINAL static bool go_on(inference *run, uint32_t work)
{
    run->work += work;
    if (run->work < WORDS_AT_A_TIME)
        return true;
    run->work = 0;
    run->board->keep_alive();
    return run->board->time_us() - run->since_us < WC_MAX_INFER_US;
}

/* Copy the bits under the kernel at one position, in the order of the weights: pairs of words, the bits and which of them lie
 * inside the image. A row of the kernel is copied at once. */
WC_AT_NOMINAL static void gather_bits(inference *run, uint32_t *to, uint32_t top, uint32_t left)
{
    const wc_stage *s = &run->stage;
    const uint32_t *input = run->arena + s->input;
    uint32_t set = 0, inside = 0, filled = 0, height = s->height, count = s->kernel[1], end = left + count;
    uint32_t before = (int32_t)left < 0 ? 0 - left : 0;
    if ((int32_t)end > (int32_t)s->width)
        end = s->width;
    uint32_t in_row = (int32_t)(left + before) < (int32_t)end ? end - (left + before) : 0;
    uint32_t mask = in_row ? 0xffffffffu >> (32 - in_row) << before : 0;
    run->valid = 0;
    for (uint32_t channel = 0, at = left + before; channel < s->channels; channel++, at += height * s->width) {
        for (uint32_t i = 0, y = top; i < s->kernel[0]; i++, y++) {
            uint32_t bits = 0, bits_inside = 0;
            if (mask && y < height) { /* above 0 is a large number */
                uint32_t from = at + y * s->width, shift = from & 31;
                const uint32_t *words = input + (from >> 5);
                bits = (words[0] >> shift | words[1] << 1 << (31 - shift)) << before & mask;
                bits_inside = mask;
                run->valid += in_row;
            }
            set |= bits << filled;
            inside |= bits_inside << filled;
            filled += count;
            if (filled < 32)
                continue;
            *to++ = set;
            *to++ = inside;
            filled -= 32;
            set = filled ? bits >> (count - filled) : 0;
            inside = filled ? bits_inside >> (count - filled) : 0;
        }
    }
    if (filled) {
        to[0] = set;
        to[1] = inside;
    }
}

/* The same for integers: one word each, 0 outside the image. */
WC_AT_NOMINAL static void gather_integers(const inference *run, uint32_t *to, uint32_t top, uint32_t left)
{
    const wc_stage *s = &run->stage;
    const uint32_t *input = run->arena + s->input;
    for (uint32_t channel = 0, plane = 0; channel < s->channels; channel++, plane += s->height) {
        for (uint32_t i = 0, y = top; i < s->kernel[0]; i++, y++) {
            uint32_t at = (plane + y) * s->width + left;
            for (uint32_t j = 0, x = left; j < s->kernel[1]; j++, x++, at++) {
                bool valid = y < s->height && x < s->width;
                *to++ = valid ? (uint32_t)(int16_t)(input[at >> 1] >> 16 * (at & 1)) : 0;
            }
        }
    }
}

/* Sum of products of bits as +1 and -1: those that agree, less those that differ. */
WC_AT_NOMINAL static uint32_t sum_bits(const inference *run, const uint32_t *under, uint32_t at)
{
    const uint32_t *weights = run->arena + run->stage.weights + (at >> 5), *end = under + 2 * ((run->inputs + 31) >> 5);
    uint32_t differ = 0, shift = at & 31, low = *weights, high;
    for (; under < end; under += 2, low = high) {
        high = *++weights;
        uint32_t x = ((low >> shift | high << 1 << (31 - shift)) ^ under[0]) & under[1];
        x -= x >> 1 & 0x55555555u;
        x = (x & 0x33333333u) + (x >> 2 & 0x33333333u);
        differ += ((x + (x >> 4)) & 0x0f0f0f0fu) * 0x01010101u >> 24;
    }
    return run->valid - 2 * differ;
}

WC_AT_NOMINAL static uint32_t sum_integers(const inference *run, const uint32_t *under, uint32_t at)
{
    const uint32_t *weights = run->arena + run->stage.weights;
    uint32_t sum = 0, end = at + run->inputs;
    while (at < end) {
        uint32_t word = weights[at >> 5] >> (at & 31) | weights[(at >> 5) + 1] << 1 << (31 - (at & 31));
        for (uint32_t i = 0; i < 32 && at < end; i++, at++, word >>= 1, under++)
            sum += word & 1 ? *under : -*under;
    }
    return sum;
}

/* --- stages ----------------------------------------------------------------------------------------------------------------- */

/* The largest sum of every output channel over the pool at one position of the output. */
WC_AT_NOMINAL static bool pool_sums(inference *run, uint32_t row, uint32_t column)
{
    const wc_stage *s = &run->stage;
    uint32_t *largest = run->arena + s->scratch, *under = largest + s->outputs;
    bool first = true;
    for (uint32_t i = 0; i < s->pool[0]; i++) {
        for (uint32_t j = 0; j < s->pool[1]; j++) {
            uint32_t y = row * s->pool_stride[0] - s->pool_padding[0] + i, x = column * s->pool_stride[1] - s->pool_padding[1] + j;
            if (!go_on(run, 1))
                return false;
            if (y >= s->sum_height || x >= s->sum_width)
                continue;
            uint32_t top = y * s->stride[0] - s->padding[0], left = x * s->stride[1] - s->padding[1];
            if (s->integers)
                gather_integers(run, under, top, left);
            else
                gather_bits(run, under, top, left);
            for (uint32_t channel = 0, at = 0; channel < s->outputs; channel++, at += run->inputs) {
                uint32_t sum = s->integers ? sum_integers(run, under, at) : sum_bits(run, under, at);
                if (first || (int32_t)sum > (int32_t)largest[channel])
                    largest[channel] = sum;
                if (!go_on(run, s->integers ? run->inputs : run->inputs >> 5))
                    return false;
            }
            first = false;
        }
    }
    return true;
}

/* Write one position of the output: sums, or whether they reach their thresholds. */
WC_AT_NOMINAL static void store(inference *run, uint32_t position, uint32_t plane)
{
    const wc_stage *s = &run->stage;
    const uint32_t *largest = run->arena + s->scratch, *thresholds = run->arena + s->thresholds, *inverted = thresholds + s->outputs;
    uint32_t *output = run->arena + s->output;
    for (uint32_t channel = 0; channel < s->outputs; channel++, position += plane) {
        if (s->last) {
            output[position] = largest[channel];
            continue;
        }
        uint32_t bit = (int32_t)largest[channel] >= (int32_t)thresholds[channel];
        bit ^= inverted[channel >> 5] >> (channel & 31) & 1;
        uint32_t *word = output + (position >> 5), mask = 1u << (position & 31);
        *word = bit ? *word | mask : *word & ~mask;
    }
}

WC_AT_NOMINAL static uint8_t run_stage(inference *run)
{
    const wc_stage *s = &run->stage;
    uint32_t plane = (uint32_t)s->out_height * s->out_width, position = 0;
    for (uint32_t row = 0; row < s->out_height; row++) {
        for (uint32_t column = 0; column < s->out_width; column++, position++) {
            if (!pool_sums(run, row, column))
                return WC_TOO_LONG;
            store(run, position, plane);
        }
    }
    return WC_OK;
}

/* Check all stages, then run them. A stage is copied first: the program lies in the arena, where a wrong one may overwrite it. */
WC_AT_NOMINAL static uint8_t run_stages(inference *run, uint32_t program, uint32_t words)
{
    uint32_t stages = run->arena[program];
    if (stages == 0 || stages > MAX_STAGES || stages * STAGE_WORDS >= words)
        return WC_OUT_OF_RANGE;
    for (int really = 0; really < 2; really++) {
        for (uint32_t i = 0; i < stages; i++) {
            for (uint32_t word = 0; word < STAGE_WORDS; word++)
                run->stage_words[word] = run->arena[program + 1 + i * STAGE_WORDS + word];
            if (!is_valid(run) || run->stage.last != (i + 1 == stages))
                return WC_OUT_OF_RANGE;
            uint8_t status = really ? run_stage(run) : (uint8_t)WC_OK;
            if (status != WC_OK)
                return status;
        }
    }
    return WC_OK;
}

WC_AT_NOMINAL void wc_infer(wc_core *core, wc_reply *reply, const uint8_t *body)
{
    inference run = {.board = core->board, .arena = (uint32_t *)core->board->arena, .words = core->board->arena_bytes / 4};
    uint32_t program = wc_get_le(body, 2) * (WC_PAGE / 4), words = wc_get_le(body + 2, 2);
    uint8_t status = WC_OUT_OF_RANGE;
    run.since_us = run.board->time_us();
    if (words > 0 && fits(&run, program, words) && wc_crc_words(run.arena + program, words) == wc_get_le(body + 4, 4))
        status = run_stages(&run, program, words);
    if (status != WC_OK) {
        wc_refuse_request(reply, status);
        return;
    }
    const int32_t *sums = (const int32_t *)run.arena + run.stage.output;
    uint32_t count = (uint32_t)run.stage.outputs * run.stage.out_height * run.stage.out_width, class = 0;
    for (uint32_t i = 1; i < count; i++)
        if (sums[i] > sums[class])
            class = i;
    wc_append_le(reply, class, 2);
    wc_append_bytes(reply, sums, (int)(4 * count));
}
