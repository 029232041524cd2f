/* RP2350 (Pico 2). Code, data and stack live in SRAM8 and SRAM9; the arena is the striped SRAM0-7, 512 KB. */
#include "chip.h"
#include "../pico.h"

enum { NOMINAL = 11, MINIMUM = 0 };                   /* 1.10 V and 0.55 V */
enum { VREG_CTRL = 0x04, VREG_STS = 0x08, VREG = 0x0c, BOD = 0x1c };
enum { UPDATING = 1u << 15, UNLOCK = 1u << 13, VOUT_OK = 1u << 4, BOD_ON = 1u };
#define PASSWORD 0x5afe0000u

static uint8_t regulator_code(void)
{
    return (uint8_t)(REG(POWMAN + VREG) >> 4 & 31u);
}

static uint8_t regulator_ok(void)
{
    return (uint8_t)(REG(POWMAN + VREG_STS) >> 4 & 1u);
}

/* The last door: whatever was asked for, nothing above nominal reaches the regulator. */
static void set_regulator(uint32_t code)
{
    if (code > NOMINAL)
        code = NOMINAL;
    while (REG(POWMAN + VREG) & UPDATING) {
    }
    REG(POWMAN + VREG) = PASSWORD | (REG(POWMAN + VREG) & 0xfe0fu & ~UPDATING) | code << 4;
    while (REG(POWMAN + VREG) & UPDATING) {
    }
}

void chip_restore(void)
{
    SET(POWMAN + VREG_CTRL) = PASSWORD | UNLOCK;
    set_regulator(NOMINAL);
    while (!regulator_ok()) {
    }
}

uint32_t chip_boot_reason(void)
{
    return REG(WATCHDOG + 8);
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
    REG(CLOCKS + 0x84) = 0; /* no resuscitation */
    REG(XOSC + 0x0c) = 282;
    REG(XOSC) = 0xaa0u | 0xfabu << 12;
    while (!(REG(XOSC + 4) & 1u << 31)) {
    }
    REG(CLOCKS + 0x3c) = 0;
    REG(CLOCKS + 0x30) = 2;
    while (REG(CLOCKS + 0x38) != 4u) {
    }
    start_anew(1u << 15);
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
    REG(TICKS + 0x1c) = 12; /* TIMER0: 1 us */
    REG(TICKS + 0x18) = 1;
    REG(TICKS + 0x34) = 12; /* watchdog: 1 us */
    REG(TICKS + 0x30) = 1;
    start_anew(1u << 26 | 1u << 23 | 1u << 9 | 1u << 6);
    REG(PADS_BANK0 + 4) = 0x56; /* no isolation */
    REG(PADS_BANK0 + 8) = 0x56;
    REG(IO_BANK0 + 4) = 2;
    REG(IO_BANK0 + 12) = 2;
}

static uint32_t time_us(void)
{
    return REG(TIMER0 + 0x28); /* TIMERAWL */
}

/* Retention: nothing reads or writes the arena while the voltage is low. The CPU polls the timer from SRAM8, at 12 MHz. */
static void pulse(uint8_t code, uint32_t dwell_us, wc_pulse *result)
{
    uint32_t bod = REG(POWMAN + BOD) & 0x1ffu;
    flush();
    chip_alive();
    run_slow();
    REG(POWMAN + BOD) = PASSWORD | (bod & ~(uint32_t)BOD_ON);
    uint32_t begun = time_us();
    set_regulator(code);
    while (time_us() - begun < dwell_us) {
    }
    result->low_code = regulator_code();
    result->low_ok = regulator_ok();
    uint32_t ended = time_us();
    set_regulator(NOMINAL);
    while (!regulator_ok() && time_us() - ended < 100000u) {
    }
    while (time_us() - ended < 1000u) { /* the regulator's own slew is not known: wait before anything is read */
    }
    REG(POWMAN + BOD) = PASSWORD | bod;
    run_fast();
    result->after_code = regulator_code();
    result->after_ok = regulator_ok();
    result->dwell_us = ended - begun;
}

const wc_board chip_board = {
    .chip = 2,
    .nominal_code = NOMINAL,
    .minimum_code = MINIMUM,
    .arena_address = 0x20000000u,
    .arena = (volatile uint32_t *)0x20000000u,
    .arena_bytes = 512u * 1024u,
    .put = put,
    .time_us = time_us,
    .regulator_code = regulator_code,
    .regulator_ok = regulator_ok,
    .alive = chip_alive,
    .pulse = pulse,
};
