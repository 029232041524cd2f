/* RP2350 (Pico 2). Code, data and stack live in SRAM8 and SRAM9; the arena is the striped SRAM0-7, 512 KB. */
#include "chip.h"
#include "../../core/crc32.h"
#include "../pico.h"

enum { MINIMUM = 0 };                                 /* 0.55 V */
enum { VREG_CTRL = 0x04, VREG_STS = 0x08, VREG = 0x0c, LP_ENTRY = 0x10, LP_EXIT = 0x14, BOD = 0x1c, BOD_LP_ENTRY = 0x20 };
enum { BOD_LP_EXIT = 0x24, BROWN_OUT_ON = 0xb1 };      /* 0.946 V, as after a reset */
enum { CHIP_RESET = 0x2c, WDSEL = 0x30, STATE = 0x38, LPOSC_KHZ = 0x50, LPOSC_KHZ_FRACTION = 0x54, SET_TIME = 0x60, READ_TIME = 0x74 };
enum { ALARM_TIME = 0x78, TIMER = 0x88, DBG_PWRCFG = 0xa4, SCRATCH = 0xb0, BOOT = 0xd0 };
enum { UPDATING = 1u << 15, UNLOCK = 1u << 13, VOUT_OK = 1u << 4, LINEAR = 1u << 2 };
enum { RUN = 1u << 1, ALARM_ON = 1u << 4, WAKES = 1u << 5, ALARM = 1u << 6, USE_LPOSC = 1u << 8 };
enum { CORE_AND_XIP_OFF = 12u << 4, REFUSED = 7u << 8, WAITING = 1u << 12, RESET_POWMAN_ASYNC = 1u };
enum { RESET_UART0 = 1u << 26, RESET_TIMER0 = 1u << 23, RESET_PADS = 1u << 9, RESET_IO = 1u << 6, RESET_DMA = 1u << 2 };
enum { RESET_ADC = 1u };
enum { AUXCTRL = 0x14, POWMAN_ON_LPOSC = 1u, NO_OTP_SUPPLY_RESET = 1u << 2 };
enum { ACCESS_POWMAN = 0xb0, ACCESS_CLOCKS = 0xc0, ACCESS_WATCHDOG = 0xd8, ACCESS_BY_DMA = 1u << 6 };
#define PASSWORD 0x5afe0000u
#define ACCESS_PASSWORD 0xacce0000u
#define SLEPT 0x736c6570u /* in SCRATCH0: the firmware entered SLEEP */

static void powman(uint32_t offset, uint32_t value)
{
    REG(POWMAN + offset) = PASSWORD | value;
}

uint8_t pico_chip_code(void)
{
    return (uint8_t)(REG(POWMAN + VREG) >> 4 & 31u);
}

uint8_t pico_chip_regulator_ok(void)
{
    return (uint8_t)((REG(POWMAN + VREG_STS) & VOUT_OK) != 0);
}

/* The last check before the register: no code above nominal reaches the regulator. */
static uint32_t code_bits(uint32_t code)
{
    return (code > NOMINAL ? NOMINAL : code) << 4;
}

uint32_t pico_chip_regulator_word(uint32_t code)
{
    return PASSWORD | code_bits(code); /* the other bits are status, and high impedance: off */
}

uint8_t pico_chip_low_ok(uint32_t word)
{
    return (word & UPDATING) == 0; /* VOUT_OK is in another register, which is not read while low */
}

void pico_chip_set_code(uint32_t code)
{
    while (REG(POWMAN + VREG) & UPDATING) {
    }
    REG(POWMAN + VREG) = pico_chip_regulator_word(code);
    while (REG(POWMAN + VREG) & UPDATING) {
    }
}

void pico_chip_set_nominal(void)
{
    SET(POWMAN + VREG_CTRL) = PASSWORD | UNLOCK;
    pico_chip_set_code(NOMINAL);
    while (!pico_chip_regulator_ok()) {
    }
}

void pico_chip_set_brown_out(bool on)
{
    powman(BOD, on ? BROWN_OUT_ON : 0);
}

/* Bits 0-1: the watchdog's reason; bits 16 on: CHIP_RESET (16 power-on, 17 brown-out, 18 RUN pin, ...). */
uint32_t pico_chip_boot_reason(void)
{
    return REG(WATCHDOG + 8) | (REG(POWMAN + CHIP_RESET) & 0x1fff0000u);
}

/* A reset by the watchdog includes CLOCKS: POWMAN must not run from clk_ref then. The supply detector of the OTP would reset the
 * chip at a low voltage. */
void pico_chip_prepare_watchdog(void)
{
    SET(SYSCFG + AUXCTRL) = POWMAN_ON_LPOSC | NO_OTP_SUPPLY_RESET;
    REG(TICKS + 0x34) = 12; /* watchdog: 1 us from the crystal */
    REG(TICKS + 0x30) = 1;
}

#ifdef WC_FLASH
/* Cache maintenance: writing to these addresses makes the lines invalid, by set and way. They are beyond any flash chip. */
#define CACHE_LINES 0x1bffc000u
#define CACHE_END 0x1c000000u
#define ROM_LOOKUP (*(volatile uint16_t *)0x16)
enum { SECURE_ARM = 1u << 2 };
typedef uint32_t rom_lookup_fn(uint32_t code, uint32_t kind);
typedef void rom_fn(void);

void pico_chip_flush_cache(void)
{
    for (uint32_t line = CACHE_LINES; line < CACHE_END; line += 8)
        *(volatile uint8_t *)line = 0;
    __asm volatile("dsb\n isb" ::: "memory");
}

/* Waking from SLEEP finds the flash's controller and pads as after a reset. The boot ROM's functions connect it again. */
static void connect_flash(void)
{
    /* connect the pads, end other modes, flush the cache, read with 03h */
    static const uint16_t steps[] = {'I' | 'F' << 8, 'E' | 'X' << 8, 'F' | 'C' << 8, 'C' | 'X' << 8};
    rom_lookup_fn *look_up = (rom_lookup_fn *)(uint32_t)ROM_LOOKUP;
    for (unsigned i = 0; i < sizeof steps / sizeof steps[0]; i++)
        ((rom_fn *)look_up(steps[i], SECURE_ARM))();
}

void pico_chip_read_serial(uint32_t serial[2])
{
    serial[0] = REG(OTP_DATA);
    serial[1] = REG(OTP_DATA + 4);
}
#else
static void connect_flash(void)
{
}
#endif

WC_AT_NOMINAL static void let_dma_access(uint32_t offset)
{
    REG(ACCESSCTRL + offset) = ACCESS_PASSWORD | (REG(ACCESSCTRL + offset) & 0xffu) | ACCESS_BY_DMA;
}

WC_AT_NOMINAL void pico_chip_start_peripherals(void)
{
    REG(TICKS + 0x1c) = 12; /* TIMER0: 1 us */
    REG(TICKS + 0x18) = 1;
    pico_reset_peripherals(RESET_UART0 | RESET_TIMER0 | RESET_PADS | RESET_IO | RESET_DMA | RESET_ADC);
    REG(ADC) = (REG(SYSINFO + 4) & 1u ? 4u : 8u) << 12 | 3u; /* temperature sensor, on; its channel depends on the package */
    let_dma_access(ACCESS_POWMAN);
    let_dma_access(ACCESS_CLOCKS);
    let_dma_access(ACCESS_WATCHDOG);
    REG(PADS_BANK0 + 4) = 0x56; /* no isolation */
    REG(PADS_BANK0 + 8) = 0x56;
#ifdef WC_FLASH
    powman(WDSEL, RESET_POWMAN_ASYNC); /* a watchdog reset also resets the regulator, before the boot ROM runs */
#endif
}

/* --- power state P1.4: the core is off while all SRAM is at the low-power voltage ------------------------------------------------
 * The firmware's own data lie in SRAM9, at that voltage too. Their CRC is kept in the always-on SCRATCH1, what was measured before in
 * SCRATCH2 and 3. */

/* Written before every SLEEP, in this order. */
static const uint16_t settings[][2] = {
    {LP_EXIT, NOMINAL << 4},
    {BOD_LP_ENTRY, 0},
    {BOD_LP_EXIT, 0},             /* pico_main switches it on when nominal voltage is back */
    {DBG_PWRCFG, 1},              /* a debugger does not keep the core awake */
    {TIMER, 0},
    {LPOSC_KHZ, 32},
    {LPOSC_KHZ_FRACTION, 50332},  /* 0.768 of 65536 */
    {SET_TIME, 0}, {SET_TIME + 4, 0}, {SET_TIME + 8, 0}, {SET_TIME + 12, 0},
    {ALARM_TIME, 0}, {ALARM_TIME + 4, 0}, {ALARM_TIME + 8, 0},
};

static void sleep(uint8_t code, uint32_t dwell_us)
{
    wc_pulse before;
    pico_prepare_low(&before);
    powman(LP_ENTRY, code_bits(code) | LINEAR);
    for (unsigned i = 0; i < sizeof settings / sizeof settings[0]; i++)
        powman(settings[i][0], settings[i][1]);
    uint32_t ms = 0;
    while (ms * 1000u < dwell_us)
        ms++;
    powman(ALARM_TIME + 12, ms); /* bits 15 to 0, the last; at most 4000 */
    powman(TIMER, ALARM | USE_LPOSC | RUN);
    powman(TIMER, ALARM_ON | WAKES | RUN);
    REG(POWMAN + SCRATCH) = SLEPT;
    REG(POWMAN + SCRATCH + 4) = wc_crc_words(pico_bss_start, (uint32_t)(pico_bss_end - pico_bss_start));
    REG(POWMAN + SCRATCH + 8) = before.counts[0];
    REG(POWMAN + SCRATCH + 12) = before.temperature;
    pico_set_boot_vector(POWMAN + BOOT, pico_entry);
    powman(STATE, CORE_AND_XIP_OFF | REFUSED); /* the bits of an earlier refusal are cleared by writing 1 */
    for (int looks = 0; looks < 100 && !(REG(POWMAN + STATE) & REFUSED); looks++)
        if (REG(POWMAN + STATE) & WAITING)
            for (;;) /* if the core is not switched off, the watchdog ends this */
                __asm volatile("wfi" ::: "memory");
    powman(STATE, REFUSED);
    powman(TIMER, 0);
    REG(POWMAN + BOOT) = 0;
    REG(POWMAN + SCRATCH) = 0;
    pico_wait_regulator(&before);
}

bool pico_chip_woke_up(uint32_t *state, wc_pulse *result)
{
    bool slept = REG(POWMAN + SCRATCH) == SLEPT;
    REG(POWMAN + SCRATCH) = 0;
    REG(POWMAN + BOOT) = 0;
    if (slept) {
        connect_flash();
        *state = REG(POWMAN + SCRATCH + 4);
        result->counts[0] = REG(POWMAN + SCRATCH + 8);
        result->temperature = (uint16_t)REG(POWMAN + SCRATCH + 12);
        result->low_code = (uint8_t)(REG(POWMAN + LP_ENTRY) >> 4 & 31u);
        result->dwell_us = REG(POWMAN + READ_TIME) * 1000u;
        powman(TIMER, 0);
    }
    return slept;
}

const wc_board pico_chip_board = {
    .chip = 2,
    .nominal_code = NOMINAL,
    .minimum_code = MINIMUM,
    .arena_address = 0x20000000u,
    .arena = (volatile uint32_t *)0x20000000u,
    .arena_bytes = 512u * 1024u,
    .image = pico_image_start,
    .image_end = pico_image_end,
    .boot_reason = pico_chip_boot_reason,
    .count = pico_count,
    .temperature = pico_temperature,
#ifdef WC_FLASH
    .from_flash = true,
#endif
    .send_byte = pico_put,
    .time_us = pico_time_us,
    .regulator_code = pico_chip_code,
    .regulator_ok = pico_chip_regulator_ok,
    .keep_alive = pico_keep_alive,
    .pulse = pico_pulse,
    .lower = pico_lower,
    .restore = pico_restore,
#ifdef WC_FLASH
    .hand_over = pico_hand_over,
#endif
    .sleep = sleep,
};
