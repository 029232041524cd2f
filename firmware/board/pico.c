#include "pico.h"
#include "chip.h"

enum { UART_DR = 0x00, UART_FR = 0x18, UART_IBRD = 0x24, UART_FBRD = 0x28, UART_LCR_H = 0x2c, UART_CR = 0x30 };
enum { RX_EMPTY = 1u << 4, TX_FULL = 1u << 5, BUSY = 1u << 3 };

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
    REG(UART0 + UART_IBRD) = divisor >> 6;
    REG(UART0 + UART_FBRD) = divisor & 63u;
    REG(UART0 + UART_LCR_H) = 0x70; /* 8 bits, FIFOs */
    REG(UART0 + UART_CR) = 0x301;
}

/* If the core hangs while the voltage is low: the boot ROM, at nominal voltage, jumps back here; SRAM keeps its contents. */
static void arm_watchdog(void)
{
    uint32_t pc = (uint32_t)entry | 1u;
    REG(WATCHDOG + SCRATCH4) = 0xb007c0d3u;
    REG(WATCHDOG + SCRATCH4 + 4) = pc ^ (0u - 0xb007c0d3u);
    REG(WATCHDOG + SCRATCH4 + 8) = (uint32_t)stack_top;
    REG(WATCHDOG + SCRATCH4 + 12) = pc;
    REG(PSM_WDSEL) = PSM_ALL_BUT_OSCILLATORS;
    chip_alive();
    REG(WATCHDOG) = 1u << 30;
}

void chip_alive(void)
{
    REG(WATCHDOG + 4) = 0xffffffu;
    poll();
}

__attribute__((noreturn)) void board_main(void)
{
    for (uint32_t *word = bss_start; word < bss_end; word++)
        *word = 0;
    chip_restore();
    chip_start();
    start_uart();
    board = chip_board;
    board.boot_reason = chip_boot_reason();
    board.image = image_start;
    board.image_bytes = (uint32_t)((uint8_t *)image_end - (uint8_t *)image_start);
    arm_watchdog();
    wc_start(&core, &board);
    for (uint8_t turns = 0;; turns++) {
        if (turns == 0)
            chip_alive();
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
