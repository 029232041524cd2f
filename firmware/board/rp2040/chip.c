/* RP2040 (Pico). Code, data and stack live in SRAM4 and SRAM5; the arena is the striped SRAM0-3, 256 KB. */
#include "chip.h"
#include "../pico.h"

enum { MINIMUM = 5 };                                 /* 0.80 V; codes 0-5 are all 0.80 V */
enum { VREG = 0x00, BOD = 0x04, CHIP_RESET = 0x08 };
enum { VREG_ON = 1u, ROK = 1u << 12 };
enum { BROWN_OUT_ON = 0x91 };                         /* 0.860 V, as after a reset */
enum { RESET_UART0 = 1u << 22, RESET_TIMER = 1u << 21, RESET_PADS = 1u << 8, RESET_IO = 1u << 5, RESET_DMA = 1u << 2 };
enum { RESET_ADC = 1u };

uint8_t pico_chip_code(void)
{
    return (uint8_t)(REG(VREG_AND_CHIP_RESET + VREG) >> 4 & 15u);
}

uint8_t pico_chip_regulator_ok(void)
{
    return (uint8_t)((REG(VREG_AND_CHIP_RESET + VREG) & ROK) != 0);
}

uint8_t pico_chip_low_ok(uint32_t word)
{
    return (uint8_t)((word & ROK) != 0);
}

/* The last check before the register: no code above nominal reaches the regulator. */
uint32_t pico_chip_regulator_word(uint32_t code)
{
    return (code > NOMINAL ? NOMINAL : code) << 4 | VREG_ON;
}

void pico_chip_set_code(uint32_t code)
{
    REG(VREG_AND_CHIP_RESET + VREG) = pico_chip_regulator_word(code);
}

void pico_chip_set_nominal(void)
{
    pico_chip_set_code(NOMINAL);
    while (!pico_chip_regulator_ok()) {
    }
}

void pico_chip_set_brown_out(bool on)
{
    REG(VREG_AND_CHIP_RESET + BOD) = on ? BROWN_OUT_ON : 0;
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

void pico_chip_prepare_watchdog(void)
{
    REG(WATCHDOG + 0x2c) = 12u | 1u << 9; /* ticks of 1 us for timer and watchdog; about 2 us until the crystal runs */
}

#ifdef WC_FLASH
#define XIP_FLUSH 0x14000004u
#define SSI 0x18000000u
enum { CTRLR0 = 0x00, CTRLR1 = 0x04, SSIENR = 0x08, SER = 0x10, SR = 0x28, DR0 = 0x60, SPI_CTRLR0 = 0xf4 };
enum { BYTES_BOTH_WAYS = 7u << 16, WORDS_OF_READS = 0x001f0300, READ_03H = 0x03000218, RX_NOT_EMPTY = 1u << 3 };
enum { READ_UNIQUE_ID = 0x4b, ID_AT = 5, ID_BYTES = 8 };

void pico_chip_flush_cache(void)
{
    REG(XIP_FLUSH) = 1;
    (void)REG(XIP_FLUSH); /* answered when it is done */
}

/* Ask the flash with the SSI as a plain SPI controller; then read flash again as the second stage has set it up. Runs from SRAM. */
void pico_chip_read_serial(uint32_t serial[2])
{
    REG(SSI + SSIENR) = 0;
    REG(SSI + CTRLR0) = BYTES_BOTH_WAYS;
    REG(SSI + SER) = 0; /* collect the bytes, so that they are sent in one go */
    REG(SSI + SSIENR) = 1;
    for (int i = 0; i < ID_AT + ID_BYTES; i++)
        REG(SSI + DR0) = i == 0 ? READ_UNIQUE_ID : 0;
    REG(SSI + SER) = 1;
    for (int i = 0; i < ID_AT + ID_BYTES; i++) {
        while (!(REG(SSI + SR) & RX_NOT_EMPTY)) {
        }
        uint32_t byte = REG(SSI + DR0);
        if (i >= ID_AT) /* the first byte is the highest */
            serial[i < ID_AT + 4] = serial[i < ID_AT + 4] << 8 | byte;
    }
    REG(SSI + SSIENR) = 0;
    REG(SSI + CTRLR1) = 0;
    REG(SSI + CTRLR0) = WORDS_OF_READS;
    REG(SSI + SPI_CTRLR0) = READ_03H;
    REG(SSI + SSIENR) = 1;
}
#endif

WC_AT_NOMINAL void pico_chip_start_peripherals(void)
{
    pico_reset_peripherals(RESET_UART0 | RESET_TIMER | RESET_PADS | RESET_IO | RESET_DMA | RESET_ADC);
    REG(ADC) = 4u << 12 | 3u; /* temperature sensor, on */
}

const wc_board pico_chip_board = {
    .chip = 1,
    .nominal_code = NOMINAL,
    .minimum_code = MINIMUM,
    .arena_address = 0x20000000u,
    .arena = (volatile uint32_t *)0x20000000u,
    .arena_bytes = 256u * 1024u,
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
};
