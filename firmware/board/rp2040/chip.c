/* RP2040 (Pico). Code, data and stack live in SRAM4 and SRAM5; the arena is the striped SRAM0-3, 256 KB. */
#include "chip.h"
#include "../pico.h"

enum { MINIMUM = 5 };                                 /* 0.80 V; codes 0-5 are all 0.80 V */
enum { VREG = 0x00, BOD = 0x04, CHIP_RESET = 0x08 };
enum { VREG_ON = 1u, ROK = 1u << 12 };
enum { RESET_UART0 = 1u << 22, RESET_TIMER = 1u << 21, RESET_PADS = 1u << 8, RESET_IO = 1u << 5, RESET_DMA = 1u << 2 };

uint8_t chip_code(void)
{
    return (uint8_t)(REG(VREG_AND_CHIP_RESET + VREG) >> 4 & 15u);
}

uint8_t chip_ok(void)
{
    return (uint8_t)((REG(VREG_AND_CHIP_RESET + VREG) & ROK) != 0);
}

/* The last door: whatever was asked for, nothing above nominal reaches the regulator. */
static uint32_t regulator_word(uint32_t code)
{
    return (code > NOMINAL ? NOMINAL : code) << 4 | VREG_ON;
}

void chip_set(uint32_t code)
{
    REG(VREG_AND_CHIP_RESET + VREG) = regulator_word(code);
}

void chip_restore(void)
{
    chip_set(NOMINAL);
    while (!chip_ok()) {
    }
}

uint32_t chip_brown_out(uint32_t next)
{
    uint32_t before = REG(VREG_AND_CHIP_RESET + BOD);
    REG(VREG_AND_CHIP_RESET + BOD) = next;
    return before;
}

/* Bits 0-1: the watchdog's reason; bits 8, 16 and 20: power-on or brown-out, RUN pin, debugger. */
uint32_t chip_boot_reason(void)
{
    return REG(WATCHDOG + 8) | REG(VREG_AND_CHIP_RESET + CHIP_RESET);
}

bool chip_woke(uint32_t *state, wc_pulse *result)
{
    (void)state, (void)result;
    return false; /* no sleep on this chip lowers the voltage */
}

void chip_start(void)
{
    REG(WATCHDOG + 0x2c) = 12u | 1u << 9; /* 1 us ticks for timer and watchdog */
    start_anew(RESET_UART0 | RESET_TIMER | RESET_PADS | RESET_IO | RESET_DMA);
}

/* Four DMA channels in a chain, so that the CPU sleeps and nothing at all is fetched from SRAM while the voltage is low:
 * 0 sets the low code, 1 makes one empty transfer per microsecond, 2 copies the regulator register, 3 sets nominal again. */
enum { WORDS = 2u << 2, ON = 1u, AT_ONCE = 0x3fu << 15, PACED = 0x3bu << 15, QUIET = 1u << 21, LAST = 3, DMA_IRQ0 = 1u << 11 };

static void channel(uint32_t number, uint32_t from, uint32_t to, uint32_t count, uint32_t control)
{
    uint32_t base = DMA + number * 0x40u;
    uint32_t next = number == LAST ? number : number + 1; /* chained to itself: the end */
    REG(base) = from;
    REG(base + 4) = to;
    REG(base + 8) = count;
    REG(base + 0x10) = control | ON | WORDS | next << 11 | (number == LAST ? 0 : QUIET);
}

static void pulse(uint8_t code, uint32_t dwell_us, wc_pulse *result)
{
    uint32_t scratch = WATCHDOG + SCRATCH0, regulator = VREG_AND_CHIP_RESET + VREG, brown_out = quiet();
    REG(scratch) = regulator_word(code);
    REG(scratch + 4) = regulator_word(NOMINAL);
    REG(DMA + 0x420) = 1u << 16 | 12u; /* a transfer every 12 cycles of 12 MHz */
    channel(0, scratch, regulator, 1, AT_ONCE);
    channel(1, scratch + 12, scratch + 12, dwell_us ? dwell_us : 1, PACED);
    channel(2, regulator, scratch + 8, 1, AT_ONCE);
    channel(3, scratch + 4, regulator, 1, AT_ONCE);
    REG(DMA + 0x404) = 1u << LAST;
    REG(DMA + 0x40c) = 1u << LAST;
    REG(NVIC_UNPEND) = DMA_IRQ0;
    REG(NVIC_ENABLE) = DMA_IRQ0;
    uint32_t begun = time_us();
    REG(DMA + 0x430) = 1; /* start channel 0; interrupts stay masked, so the event only ends the sleep */
    __asm volatile("wfi" ::: "memory");
    uint32_t ended = time_us();
    while (!(REG(DMA + 0x400) & 1u << LAST)) {
    }
    REG(DMA + 0x40c) = 1u << LAST;
    REG(NVIC_UNPEND) = DMA_IRQ0;
    settle(brown_out, ended, result);
    uint32_t low = REG(scratch + 8);
    result->low_code = (uint8_t)(low >> 4 & 15u);
    result->low_ok = (uint8_t)((low & ROK) != 0);
    result->dwell_us = ended - begun;
}

const wc_board chip_board = {
    .chip = 1,
    .nominal_code = NOMINAL,
    .minimum_code = MINIMUM,
    .arena_address = 0x20000000u,
    .arena = (volatile uint32_t *)0x20000000u,
    .arena_bytes = 256u * 1024u,
    .put = put,
    .time_us = time_us,
    .regulator_code = chip_code,
    .regulator_ok = chip_ok,
    .alive = alive,
    .pulse = pulse,
    .lower = lower,
    .restore = restore,
};
