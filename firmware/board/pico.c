#include "pico.h"
#include "../core/crc32.h"
#include "chip.h"

enum { UART_DR = 0x00, UART_FR = 0x18, UART_IBRD = 0x24, UART_FBRD = 0x28, UART_LCR_H = 0x2c, UART_CR = 0x30 };
enum { RX_EMPTY = 1u << 4, TX_FULL = 1u << 5, BUSY = 1u << 3 };
enum { CLK_REF_CTRL = 0x30, CLK_REF_SELECTED = 0x38, CLK_SYS_CTRL = 0x3c, CLK_SYS_SELECTED = 0x44, CLK_PERI_CTRL = 0x48 };

wc_core core;
static wc_board board; /* chip_board, with the boot reason and the bounds of the image */

/* Bytes that came while an answer was being sent or a command ran: the UART's own queue holds only 32. */
static uint8_t ring[256];
static uint8_t filled, taken;

static void poll(void)
{
    while ((uint8_t)(filled + 1) != taken && !(REG(UART0 + UART_FR) & RX_EMPTY))
        ring[filled++] = (uint8_t)REG(UART0 + UART_DR);
}

void put(uint8_t byte)
{
    while (REG(UART0 + UART_FR) & TX_FULL)
        poll();
    REG(UART0 + UART_DR) = byte;
}

void flush(void)
{
    while (REG(UART0 + UART_FR) & BUSY) {
    }
}

static void start_uart(void)
{
    uint32_t divisor = (PERIPHERAL_HZ * 4u + BAUD / 2u) / BAUD; /* in 1/64 */
    REG(IO_BANK0 + 4) = 2;
    REG(IO_BANK0 + 12) = 2;
    REG(UART0 + UART_IBRD) = divisor >> 6;
    REG(UART0 + UART_FBRD) = divisor & 63u;
    REG(UART0 + UART_LCR_H) = 0x70; /* 8 bits, FIFOs */
    REG(UART0 + UART_CR) = 0x301;
}

uint32_t time_us(void)
{
    return REG(TIMER0 + 0x28); /* TIMERAWL */
}

/* --- clocks ----------------------------------------------------------------------------------------------------------------- */

void start_anew(uint32_t bits)
{
    SET(RESETS) = bits;
    CLEAR(RESETS) = bits;
    while ((REG(RESETS + 8) & bits) != bits) {
    }
}

/* clk_sys from the 48 MHz PLL, or from the 12 MHz crystal while the voltage is low. clk_peri stays at 48 MHz. */
static void run_fast(void)
{
    REG(CLOCKS + CLK_SYS_CTRL) = 1u << 5;
    REG(CLOCKS + CLK_SYS_CTRL) = 1u << 5 | 1u;
    while (REG(CLOCKS + CLK_SYS_SELECTED) != 2u) {
    }
}

static void run_slow(void)
{
    REG(CLOCKS + CLK_SYS_CTRL) = 1u << 5;
    while (REG(CLOCKS + CLK_SYS_SELECTED) != 1u) {
    }
}

static void start_clocks(void)
{
    REG(CLOCKS + CLK_RESUS_CTRL) = 0; /* no resuscitation */
    REG(XOSC + 0x0c) = 282;
    REG(XOSC) = 0xaa0u | 0xfabu << 12;
    while (!(REG(XOSC + 4) & 1u << 31)) {
    }
    REG(CLOCKS + CLK_SYS_CTRL) = 0;
    REG(CLOCKS + CLK_REF_CTRL) = 2;
    while (REG(CLOCKS + CLK_REF_SELECTED) != 4u) {
    }
    start_anew(RESET_PLL_USB);
    REG(PLL_USB) = 1;
    REG(PLL_USB + 8) = 100;
    CLEAR(PLL_USB + 4) = 0x21;
    while (!(REG(PLL_USB) & 1u << 31)) {
    }
    REG(PLL_USB + 0x0c) = 5u << 16 | 5u << 12;
    CLEAR(PLL_USB + 4) = 8;
    run_fast();
    REG(CLOCKS + CLK_PERI_CTRL) = 2u << 5; /* clk_peri from the PLL, whatever clk_sys does */
    REG(CLOCKS + CLK_PERI_CTRL) = 2u << 5 | 1u << 11;
}

/* --- the voltage ------------------------------------------------------------------------------------------------------------ */

static uint32_t begun, before; /* of the pulse under way: when the low code was set, and brown-out detection as it was */

uint32_t quiet(void)
{
    flush();
    alive();
    run_slow();
    return chip_brown_out(0);
}

void settle(uint32_t brown_out, uint32_t ended, wc_pulse *result)
{
    while (!chip_ok() && time_us() - ended < 100000u) {
    }
    while (time_us() - ended < 1000u) { /* the regulator's own slew is not known: wait before anything is read */
    }
    chip_brown_out(brown_out);
    run_fast();
    result->after_code = chip_code();
    result->after_ok = chip_ok();
}

void lower(uint8_t code, uint32_t dwell_us, wc_pulse *result)
{
    before = quiet();
    begun = time_us();
    chip_set(code);
    while (time_us() - begun < dwell_us) {
    }
    result->low_code = chip_code();
    result->low_ok = chip_ok();
}

void restore(wc_pulse *result)
{
    uint32_t ended = time_us();
    chip_set(NOMINAL);
    result->dwell_us = ended - begun;
    settle(before, ended, result);
}

/* --- the watchdog ----------------------------------------------------------------------------------------------------------- */

void alive(void)
{
    REG(WATCHDOG + 4) = 0xffffffu;
    poll();
}

void vector(uint32_t address, void (*to)(void))
{
    uint32_t pc = (uint32_t)to | 1u;
    REG(address) = VECTOR_MAGIC;
    REG(address + 4) = pc ^ (0u - VECTOR_MAGIC);
    REG(address + 8) = (uint32_t)stack_top;
    REG(address + 12) = pc;
}

/* If the core hangs while the voltage is low: the boot ROM, at nominal voltage, comes back here; SRAM keeps its contents.
 * From flash it does so by copying the image anew; a RAM image has only the one in SRAM. */
static void arm_watchdog(void)
{
#ifdef WC_FLASH
    REG(WATCHDOG + SCRATCH4) = 0;
#else
    vector(WATCHDOG + SCRATCH4, entry);
#endif
    REG(PSM_WDSEL) = PSM_ALL_BUT_OSCILLATORS;
    alive();
    REG(WATCHDOG) = 1u << 30;
}

/* --- the loop --------------------------------------------------------------------------------------------------------------- */

static void begin(void)
{
    for (uint32_t *word = bss_start; word < bss_end; word++)
        *word = 0;
    board = chip_board;
    board.boot_reason = chip_boot_reason();
    board.image = image_start;
    board.image_bytes = (uint32_t)((uint8_t *)image_end - (uint8_t *)image_start);
#ifdef WC_FLASH
    board.from_flash = true;
#endif
    wc_start(&core, &board);
}

__attribute__((noreturn)) void board_main(void)
{
    uint32_t state;
    wc_pulse result = {0};
    chip_restore();
    bool woke = chip_woke(&state, &result) && state == wc_crc_words(bss_start, (uint32_t)(bss_end - bss_start));
    if (!woke)
        begin();
    filled = taken = 0;
    start_clocks();
    chip_start();
    start_uart();
    arm_watchdog();
    if (woke) {
        result.after_code = chip_code();
        result.after_ok = chip_ok();
        wc_wake(&core, &result);
    }
    for (uint8_t turns = 0;; turns++) {
        if (turns == 0)
            alive();
        if (filled == taken)
            poll();
        else
            wc_feed(&core, ring[taken++]);
    }
}

/* The compiler may call these for plain loops and copies. */
void *memset(void *to, int value, unsigned long count)
{
    volatile uint8_t *bytes = to;
    while (count--)
        *bytes++ = (uint8_t)value;
    return to;
}

void *memcpy(void *to, const void *from, unsigned long count)
{
    volatile uint8_t *bytes = to;
    const uint8_t *source = from;
    while (count--)
        *bytes++ = *source++;
    return to;
}
