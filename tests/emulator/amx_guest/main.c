/* Runs recorded kernel calls and compares what they write, bit for bit. No operating system: `boot.S` comes here in long mode.
   Text goes to port 0xE9. */
typedef unsigned char u8;
typedef unsigned long u64;

#define DATA 0x400000ul  /* the calls; see `amx_in_bochs.py` */
#define HEAP 0x8000000ul /* memory of kernels: nothing is freed within a call */

struct call {
    u64 kernel, words, out, before, expected, size;
};
typedef int kernel(u64 *result, void **exception, u64 *arguments);
extern kernel *const tile_kernels[], *const vector_kernels[];

static u8 *heap;
void *malloc(u64 size) {
    u8 *room = heap;
    heap += (size + 63) & -64ul;
    return room;
}
void free(void *room) { (void)room; }
void *memset(void *to, int value, u64 count) {
    void *place = to;
    __asm__ volatile("rep stosb" : "+D"(place), "+c"(count) : "a"(value) : "memory");
    return to;
}
void *memcpy(void *to, const void *from, u64 count) {
    void *place = to;
    __asm__ volatile("rep movsb" : "+D"(place), "+S"(from), "+c"(count)::"memory");
    return to;
}
void *memmove(void *to, const void *from, u64 count) { /* kernels move nothing onto itself */
    return memcpy(to, from, count);
}

static void put(char c) { __asm__ volatile("outb %0, $0xe9" ::"a"(c)); }
static void say(const char *text) {
    while (*text) put(*text++);
}
static void say_number(u64 value) {
    char digits[20];
    int n = 0;
    do digits[n++] = '0' + value % 10;
    while (value /= 10);
    put(' ');
    while (n) put(digits[--n]);
}
static u64 count_instructions(void) {
    unsigned low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (u64)high << 32 | low;
}

/* Whether the machine multiplies unsigned by signed bytes. Bochs 3.0 multiplies unsigned by unsigned bytes. */
static int has_tdpbusd(void) {
    static u8 configuration[64], inputs[1024], weights[1024];
    static int sums[256];
    configuration[0] = 1;
    for (int tile = 0; tile < 3; tile++) configuration[16 + 2 * tile] = 64, configuration[48 + tile] = 16;
    for (int i = 0; i < 1024; i++) inputs[i] = i * 37 + 11, weights[i] = i * 91 + 5;
    __asm__ volatile("ldtilecfg %0\n tileloadd (%1,%4,1), %%tmm1\n tileloadd (%2,%4,1), %%tmm2\n"
                     "tdpbusd %%tmm2, %%tmm1, %%tmm0\n tilestored %%tmm0, (%3,%4,1)\n tilerelease" ::"m"(configuration),
                     "r"(inputs), "r"(weights), "r"(sums), "r"(64ul)
                     : "memory");
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            int sum = 0;
            for (int k = 0; k < 64; k++) sum += inputs[64 * m + k] * (signed char)weights[k / 4 * 64 + 4 * n + k % 4];
            if (sum != sums[16 * m + n]) return 0;
        }
    return 1;
}

/* Run one call; return the number of wrong bytes. */
static u64 run(kernel *code, const struct call *call) {
    u64 result = 0, wrong = 0;
    void *exception = 0;
    heap = (u8 *)HEAP;
    memcpy((void *)call->out, (void *)call->before, call->size);
    u64 begin = count_instructions();
    u64 failed = code(&result, &exception, (u64 *)call->words);
    say_number(count_instructions() - begin);
    for (u64 i = 0; i < call->size; i++) wrong += ((u8 *)call->out)[i] != ((u8 *)call->expected)[i];
    say_number(wrong);
    return wrong + failed;
}

__attribute__((section(".text.start"))) void start(void) {
    const struct call *calls = (void *)(DATA + 8);
    u64 wrong = 0;
    say(has_tdpbusd() ? "tdpbusd right\n" : "tdpbusd wrong\n");
    for (u64 i = 0; i < *(u64 *)DATA; i++) {
        say("call");
        say_number(i);
        wrong += run(tile_kernels[calls[i].kernel], calls + i) != 0;
        wrong += run(vector_kernels[calls[i].kernel], calls + i) != 0;
        put('\n');
    }
    say("end");
    say_number(wrong);
    put('\n');
    for (const char *c = "Shutdown"; *c; c++) __asm__ volatile("outb %0, %1" ::"a"(*c), "d"((short)0x8900));
    for (;;) __asm__ volatile("hlt");
}
