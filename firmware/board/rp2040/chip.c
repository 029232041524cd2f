/* RP2040 (Pico). Code, data and stack live in SRAM4 and SRAM5; the arena is the striped SRAM0-3, 256 KB. */
#include "chip.h"
#include "../pico.h"

enum { NOMINAL = 11, MINIMUM = 5 };                   /* 1.10 V and 0.80 V; codes 0-5 are all 0.80 V */
enum { VREG = 0x00, BOD = 0x04, CHIP_RESET = 0x08 };
enum { VREG_ON = 1u, ROK = 1u << 12, BOD_ON = 1u };

static uint8_t regulator_code(void)
{
    return (uint8_t)(REG(VREG_AND_CHIP_RESET + VREG) >> 4 & 15u);
}

static uint8_t regulator_ok(void)
{
    return (uint8_t)((REG(VREG_AND_CHIP_RESET + VREG) & ROK) != 0);
}

/* The last door: whatever was asked for, nothing above nominal reaches the regulator. */
static uint32_t regulator_word(uint32_t code)
{
    return (code > NOMINAL ? NOMINAL : code) << 4 | VREG_ON;
}

void chip_restore(void)
{
    REG(VREG_AND_CHIP_RESET + VREG) = regulator_word(NOMINAL);
    while (!regulator_ok()) {
    }
}

/* Bits 0-1: the watchdog's reason; bits 8, 16 and 20: power-on, RUN pin, debugger. */
uint32_t chip_boot_reason(void)
{
    return REG(WATCHDOG + 8) | REG(VREG_AND_CHIP_RESET + CHIP_RESET);
}

/* Into reset and out again: the boot ROM, or the run before, may have used them. */
static void start_anew(uint32_t bits)
{
    SET(RESETS) = bits;
    CLEAR(RESETS) = bits;
    while ((REG(RESETS + 8) & bits) != bits) {
    }
}

/* clk_sys from the 48 MHz PLL, or from the 12 MHz crystal while the voltage is low. clk_peri stays at 48 MHz. */
static void run_fast(void)
{
    REG(CLOCKS + 0x3c) = 1u << 5;
    REG(CLOCKS + 0x3c) = 1u << 5 | 1u;
    while (REG(CLOCKS + 0x44) != 2u) {
    }
}

static void run_slow(void)
{
    REG(CLOCKS + 0x3c) = 1u << 5;
    while (REG(CLOCKS + 0x44) != 1u) {
    }
}

void chip_start(void)
{
    REG(CLOCKS + 0x78) = 0; /* no resuscitation */
    REG(XOSC + 0x0c) = 282;
    REG(XOSC) = 0xaa0u | 0xfabu << 12;
    while (!(REG(XOSC + 4) & 1u << 31)) {
    }
    REG(CLOCKS + 0x3c) = 0;
    REG(CLOCKS + 0x30) = 2;
    while (REG(CLOCKS + 0x38) != 4u) {
    }
    start_anew(1u << 13);
    REG(PLL_USB) = 1;
    REG(PLL_USB + 8) = 100;
    CLEAR(PLL_USB + 4) = 0x21;
    while (!(REG(PLL_USB) & 1u << 31)) {
    }
    REG(PLL_USB + 0x0c) = 5u << 16 | 5u << 12;
    CLEAR(PLL_USB + 4) = 8;
    run_fast();
    REG(CLOCKS + 0x48) = 2u << 5; /* clk_peri from the PLL, whatever clk_sys does */
    REG(CLOCKS + 0x48) = 2u << 5 | 1u << 11;
    REG(WATCHDOG + 0x2c) = 12u | 1u << 9; /* 1 us ticks for timer and watchdog */
    start_anew(1u << 22 | 1u << 21 | 1u << 8 | 1u << 5 | 1u << 2);
    REG(IO_BANK0 + 4) = 2;
    REG(IO_BANK0 + 12) = 2;
}

static uint32_t time_us(void)
{
    return REG(TIMER0 + 0x28); /* TIMERAWL */
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
    uint32_t scratch = WATCHDOG + SCRATCH0, regulator = VREG_AND_CHIP_RESET + VREG;
    uint32_t bod = REG(VREG_AND_CHIP_RESET + BOD);
    flush();
    chip_alive();
    run_slow();
    REG(VREG_AND_CHIP_RESET + BOD) = bod & ~(uint32_t)BOD_ON;
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
    while (!regulator_ok() && time_us() - ended < 100000u) {
    }
    while (time_us() - ended < 1000u) { /* the regulator's own slew is not known: wait before anything is read */
    }
    REG(VREG_AND_CHIP_RESET + BOD) = bod;
    run_fast();
    uint32_t low = REG(scratch + 8);
    result->low_code = (uint8_t)(low >> 4 & 15u);
    result->low_ok = (uint8_t)((low & ROK) != 0);
    result->after_code = regulator_code();
    result->after_ok = regulator_ok();
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
    .regulator_code = regulator_code,
    .regulator_ok = regulator_ok,
    .alive = chip_alive,
    .pulse = pulse,
};
