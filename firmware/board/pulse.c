/* The pulse by DMA: the CPU sleeps and nothing is fetched from SRAM while the voltage is low. What the chain needs is in registers:
 * the words that it writes are in the watchdog's scratch registers, which also receive what it reads.
 *
 * | channel | does |
 * |---|---|
 * | 0 | sets the low code |
 * | 1 | waits: one dummy transfer per microsecond |
 * | 2, 3 | starts a count of the ring oscillator, waits for it |
 * | 4, 5, 6 | copies the count, the counter's status and the regulator's register |
 * | 7, 8 | sets the nominal code, waits until the voltage is back; then its interrupt wakes the CPU |
 * | 9, 10 | the guard of an access while low: waits, sets the nominal code |
 *
 * HAND_OVER uses the same chain. Channel 0 switches the regulator off instead, and channel 1 feeds the watchdog once per millisecond:
 * for so long and no longer, whatever becomes of the CPU. */
#include "pico.h"
#include "chip.h"

enum { ON = 1u, WORDS = 2u << 2, AT_ONCE = 0x3f, PACED = 0x3b, PACED_SLOWLY = 0x3c, LAST = 8, GUARD = 9 };
enum { INTERRUPTS = 0x400, ENABLED = 0x404, STATUS = 0x40c };
enum { LOW = SCRATCH0, RESTORED = SCRATCH0 + 4, COUNTER = SCRATCH0 + 8, UNUSED = SCRATCH0 + 12 }; /* of the watchdog */

/* What each channel moves; a dummy transfer is paced. */
static const struct {
    uint32_t from, to;
} moves[] = {
    {WATCHDOG + LOW, REGULATOR}, {WATCHDOG + UNUSED, WATCHDOG + UNUSED},
    {WATCHDOG + COUNTER, CLOCKS + FC0_SRC}, {WATCHDOG + UNUSED, WATCHDOG + UNUSED},
    {CLOCKS + FC0_SRC + 8, WATCHDOG + COUNTER}, {CLOCKS + FC0_SRC + 4, WATCHDOG + UNUSED}, {REGULATOR, WATCHDOG + LOW},
    {WATCHDOG + RESTORED, REGULATOR}, {WATCHDOG + UNUSED, WATCHDOG + UNUSED},
    {WATCHDOG + UNUSED, WATCHDOG + UNUSED}, {WATCHDOG + RESTORED, REGULATOR},
};

/* Set up a channel. us: dummy transfers, one per microsecond; 0: the one move. */
static void set_channel(uint32_t number, uint32_t us)
{
    bool last = number == LAST || number == GUARD + 1;
    uint32_t base = DMA + number * 0x40u, next = last ? number : number + 1; /* a channel chained to itself ends the chain */
    uint32_t pace = us ? PACED : AT_ONCE;
    REG(base) = moves[number].from;
    REG(base + 4) = moves[number].to;
    REG(base + 8) = us ? us : 1;
    REG(base + 0x10) = ON | WORDS | next << DMA_CHAIN | pace << DMA_PACE | (number == LAST ? 0u : DMA_QUIET);
}

static void set_words(uint32_t code)
{
    REG(DMA + DMA_TIMER0) = 1u << 16 | 12u; /* a transfer every 12 cycles of 12 MHz */
    REG(WATCHDOG + LOW) = pico_chip_regulator_word(code);
    REG(WATCHDOG + RESTORED) = pico_chip_regulator_word(NOMINAL);
    REG(WATCHDOG + COUNTER) = RING_OSCILLATOR;
}

/* Run the chain while the CPU sleeps: channel 1 is set up already. */
#ifdef WC_FLASH
__attribute__((noinline)) /* never a part of a function in flash */
#endif
static void run_chain(wc_pulse *result)
{
    for (uint32_t number = 0; number <= LAST; number++)
        if (number != 1)
            set_channel(number, number == 3 ? COUNT_US : number == LAST ? SETTLE_US : 0);
    REG(DMA + ENABLED) = 1u << LAST;
    REG(DMA + STATUS) = 1u << LAST;
    REG(NVIC_UNPEND) = DMA_IRQ0;
    REG(NVIC_ENABLE) = DMA_IRQ0;
    uint32_t low_since_us = pico_time_us();
    REG(DMA + DMA_TRIGGER) = 1; /* start channel 0; interrupts are masked, so the event only ends WFI */
    __asm volatile("wfi" ::: "memory");
    uint32_t ended = pico_time_us();
    while (!(REG(DMA + INTERRUPTS) & 1u << LAST)) {
    }
    REG(DMA + STATUS) = 1u << LAST;
    REG(DMA + ENABLED) = 0;
    REG(NVIC_UNPEND) = DMA_IRQ0;
    uint32_t low = REG(WATCHDOG + LOW);
    pico_chip_set_code(NOMINAL);
    pico_wait_regulator(result);
    result->counts[1] = REG(WATCHDOG + UNUSED) & COUNTER_DONE ? REG(WATCHDOG + COUNTER) : 0;
    result->low_code = (uint8_t)(low >> 4 & CODE_MASK);
    result->low_ok = pico_chip_low_ok(low);
    result->dwell_us = ended - low_since_us - SETTLE_US;
}

void pico_pulse(uint8_t code, uint32_t dwell_us, wc_pulse *result)
{
    pico_prepare_low(result);
    set_words(code);
    set_channel(1, dwell_us > COUNT_US ? dwell_us - COUNT_US : 1);
    run_chain(result);
}

#ifdef WC_FLASH
/* The regulator stays enabled: a disabled one pulls its output to ground. */
WC_AT_NOMINAL void pico_hand_over(uint32_t window_ms, wc_pulse *result)
{
    pico_serve_line(HAND_OVER_US);
    pico_prepare_low(result);
    set_words(NOMINAL);
    REG(WATCHDOG + LOW) = pico_chip_regulator_word(NOMINAL) | HIGH_IMPEDANCE;
    REG(WATCHDOG + UNUSED) = 0xffffffu;
    REG(DMA + DMA_TIMER0 + 4) = 1u << 16 | 12000u;
    set_channel(1, window_ms);
    REG(DMA + 0x44) = WATCHDOG + 4; /* channel 1 writes there */
    REG(DMA + 0x50) = ON | WORDS | 2u << DMA_CHAIN | PACED_SLOWLY << DMA_PACE | DMA_QUIET;
    run_chain(result);
}
#endif

void pico_start_guard(uint32_t after_us)
{
    set_words(NOMINAL);
    set_channel(GUARD, after_us);
    set_channel(GUARD + 1, 0);
    REG(DMA + DMA_TRIGGER) = 1u << GUARD;
}

void pico_end_guard(void)
{
    REG(DMA + DMA_ABORT) = 3u << GUARD;
    while (REG(DMA + DMA_ABORT)) {
    }
}
