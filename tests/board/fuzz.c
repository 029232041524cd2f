/* Inputs nobody meant, against the core built with sanitizers:
 *     gcc -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all tests/board/fuzz.c tests/board/native.c firmware/core/[a-z]*.c -o fuzz
 *     ./fuzz 1000000 SEED
 * Half are requests of an open session in whole frames, with random commands, lengths and bodies; half are those, spoiled, or noise. */
#include <stdio.h>
#include <stdlib.h>

#include "../../firmware/core/core.h"
#include "../../firmware/core/crc32.h"

void native_start(void);
uint32_t native_feed(const uint8_t *bytes, uint32_t count, uint8_t *answer, uint32_t room);

static uint64_t state;
static uint8_t frame[1 << 12], answer[1 << 16];
static uint32_t length;

static uint32_t any(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 20) % below;
}

static void keep(uint8_t byte)
{
    frame[length++] = byte;
}

static void number(uint8_t *to, uint32_t value)
{
    for (int i = 0; i < 4; i++, value >>= 8)
        to[i] = (uint8_t)value;
}

int main(int count, char **given)
{
    static const uint16_t bodies[] = {5, 0, 258, 2, 3, 9, 13, 5};
    unsigned long inputs = count > 1 ? strtoul(given[1], 0, 10) : 1000000, answered = 0;
    state = (count > 2 ? strtoull(given[2], 0, 10) : 1) * 0x9e3779b97f4a7c15ull | 1;
    uint32_t token = 0, next = 1;
    native_start();
    for (unsigned long input = 0; input < inputs; input++) {
        uint8_t content[WC_RAW] = {0};
        uint8_t command = (uint8_t)(any(8) ? any(8) + 1 : any(256));
        int greet = input % 1000 == 0;
        if (greet)
            command = WC_HELLO;
        uint32_t body = command >= 1 && command <= 8 && (greet || any(8)) ? bodies[command - 1] : any(WC_CONTENT - 9 + 1);
        content[0] = command;
        number(content + 1, any(20) ? token : any(~0u));
        number(content + 5, any(10) ? next : any(2 * next + 8));
        for (uint32_t i = 0; i < body; i++)
            content[9 + i] = (uint8_t)(any(2) ? any(256) : any(4));
        if (greet || (command == WC_HELLO && any(2)))
            content[9] = WC_VERSION;
        length = 0;
        wc_encode(content, (uint16_t)(9 + body), keep);
        if (!greet && any(2))
            for (uint32_t spoil = any(8); spoil > 0; spoil--)
                frame[any(length)] = (uint8_t)any(256);
        uint32_t told = native_feed(frame, length, answer, sizeof answer);
        static wc_decoder decoder;
        for (uint32_t i = 0; i < told; i++) {
            int size = wc_decode(&decoder, answer[i]);
            if (size < 0)
                continue;
            answered++;
            uint8_t *reply = decoder.bytes;
            uint32_t session = reply[1] | reply[2] << 8 | reply[3] << 16 | (uint32_t)reply[4] << 24;
            uint32_t which = reply[5] | reply[6] << 8 | reply[7] << 16 | (uint32_t)reply[8] << 24;
            if (reply[0] == (WC_HELLO | 0x80) && reply[9] == WC_OK && session != token) {
                token = session;
                next = 1;
            } else if (session == token && reply[9] != WC_GAP && which == next) {
                next++;
            }
        }
    }
    printf("%lu inputs, %lu answers, no crash\n", inputs, answered);
    return 0;
}
