/* RP2040 (Pico). Code, data and stack live in SRAM4 and SRAM5; the arena is the striped SRAM0-3, 256 KB. */
#include "chip.h"
#include "../pico.h"

enum { MINIMUM = 5 };                                 /* 0.80 V; codes 0-5 are all 0.80 V */
enum { VREG = 0x00, BOD = 0x04, CHIP_RESET = 0x08 };
enum { VREG_ON = 1u, ROK = 1u << 12 };
enum { RESET_UART0 = 1u << 22, RESET_TIMER = 1u << 21, RESET_PADS = 1u << 8, RESET_IO = 1u << 5, RESET_DMA = 1u << 2 };

uint8_t pico_chip_code(void)
{
    return (uint8_t)(REG(VREG_AND_CHIP_RESET + VREG) >> 4 & 15u);
}

uint8_t pico_chip_regulator_ok(void)
{
    return (uint8_t)((REG(VREG_AND_CHIP_RESET + VREG) & ROK) != 0);
}

/* The last check before the register: no code above nominal reaches the regulator. */
static uint32_t regulator_word(uint32_t code)
{
    return (code > NOMINAL ? NOMINAL : code) << 4 | VREG_ON;
}

void pico_chip_set_code(uint32_t code)
{
    REG(VREG_AND_CHIP_RESET + VREG) = regulator_word(code);
}

void pico_chip_set_nominal(void)
{
    pico_chip_set_code(NOMINAL);
    while (!pico_chip_regulator_ok()) {
    }
}

uint32_t pico_chip_set_brown_out(uint32_t next)
{
    uint32_t saved_brown_out = REG(VREG_AND_CHIP_RESET + BOD);
    REG(VREG_AND_CHIP_RESET + BOD) = next;
    return saved_brown_out;
}

/* Bits 0-1: the watchdog's reason; bits 8, 16 and 20: power-on or brown-out, RUN pin, debugger. */
uint32_t pico_chip_boot_reason(void)
{
    return REG(WATCHDOG + 8) | REG(VREG_AND_CHIP_RESET + CHIP_RESET);
}

bool pico_chip_woke_up(uint32_t *state, wc_pulse *result)
{
    (void)state, (void)result;
    return false; /* this chip has no sleep state that lowers the voltage */
}

void pico_chip_start_peripherals(void)
{
    REG(WATCHDOG + 0x2c) = 12u | 1u << 9; /* 1 us ticks for timer and watchdog */
    pico_reset_peripherals(RESET_UART0 | RESET_TIMER | RESET_PADS | RESET_IO | RESET_DMA);
}

/* A chain of four DMA channels: the CPU sleeps and nothing is fetched from SRAM while the voltage is low.
 * Channel 0 sets the low code, 1 makes one dummy transfer per microsecond, 2 copies the regulator register, 3 sets nominal. */
enum { WORDS = 2u << 2, ON = 1u, AT_ONCE = 0x3fu << 15, PACED = 0x3bu << 15, QUIET = 1u << 21, LAST = 3, DMA_IRQ0 = 1u << 11 };

static void channel(uint32_t number, uint32_t from, uint32_t to, uint32_t count, uint32_t control)
{
    uint32_t base = DMA + number * 0x40u;
    uint32_t next = number == LAST ? number : number + 1; /* a channel chained to itself ends the chain */
    REG(base) = from;
    REG(base + 4) = to;
    REG(base + 8) = count;
    REG(base + 0x10) = control | ON | WORDS | next << 11 | (number == LAST ? 0 : QUIET);
}

static void pulse(uint8_t code, uint32_t dwell_us, wc_pulse *result)
{
    uint32_t scratch = WATCHDOG + SCRATCH0, regulator = VREG_AND_CHIP_RESET + VREG, brown_out = pico_prepare_low();
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
    uint32_t low_since_us = pico_time_us();
    REG(DMA + 0x430) = 1; /* start channel 0; interrupts are masked, so the event only ends WFI */
    __asm volatile("wfi" ::: "memory");
    uint32_t ended = pico_time_us();
    while (!(REG(DMA + 0x400) & 1u << LAST)) {
    }
    REG(DMA + 0x40c) = 1u << LAST;
    REG(NVIC_UNPEND) = DMA_IRQ0;
    pico_wait_regulator(brown_out, ended, result);
    uint32_t low = REG(scratch + 8);
    result->low_code = (uint8_t)(low >> 4 & 15u);
    result->low_ok = (uint8_t)((low & ROK) != 0);
    result->dwell_us = ended - low_since_us;
}

const wc_board pico_chip_board = {
    .chip = 1,
    .nominal_code = NOMINAL,
    .minimum_code = MINIMUM,
    .arena_address = 0x20000000u,
    .arena = (volatile uint32_t *)0x20000000u,
    .arena_bytes = 256u * 1024u,
    .send_byte = pico_put,
    .time_us = pico_time_us,
    .regulator_code = pico_chip_code,
    .regulator_ok = pico_chip_regulator_ok,
    .keep_alive = pico_keep_alive,
    .pulse = pulse,
    .lower = pico_lower,
    .restore = pico_restore,
};
