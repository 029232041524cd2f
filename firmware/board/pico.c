#include "pico.h"
#include "../core/crc32.h"
#include "chip.h"

enum { UART_DR = 0x00, UART_FR = 0x18, UART_IBRD = 0x24, UART_FBRD = 0x28, UART_LCR_H = 0x2c, UART_CR = 0x30 };
enum { RX_EMPTY = 1u << 4, TX_FULL = 1u << 5, BUSY = 1u << 3 };
enum { CLK_REF_CTRL = 0x30, CLK_REF_SELECTED = 0x38, CLK_SYS_CTRL = 0x3c, CLK_SYS_SELECTED = 0x44, CLK_PERI_CTRL = 0x48 };

static wc_core core;

/* Bytes received while a reply was sent or a command ran. The UART's own queue holds only 32. */
enum { RING = 128 };
static uint8_t ring[RING];
static uint8_t ring_end, ring_start; /* counted without end */

static void poll_uart(void)
{
    while ((uint8_t)(ring_end - ring_start) < RING && !(REG(UART0 + UART_FR) & RX_EMPTY))
        ring[ring_end++ % RING] = (uint8_t)REG(UART0 + UART_DR);
}

/* --- USB, in the flash image only: its code is in flash, so it is only called at nominal voltage ---------------------------- */

#ifdef WC_FLASH
enum { AWAY_US = 50000 };    /* so long the board is off the bus, at least: any hub notices */
uint32_t pico_serial[2];
static uint32_t usb_off_since_us;
static bool usb_on, to_usb; /* to_usb: the last byte came from there, so replies go there */

static void stop_usb(void)
{
    SET(RESETS) = RESET_USB;
    usb_on = false;
}

static void poll_usb(void)
{
    if (usb_on)
        pico_usb_poll();
}

/* Start USB when it was away for long enough. Take a byte from it: -1 if there is none. */
static int next_usb_byte(void)
{
    if (!usb_on && pico_time_us() - usb_off_since_us >= AWAY_US) {
        pico_usb_start();
        usb_on = true;
    }
    return usb_on ? pico_usb_get() : -1;
}

static void leave_low(void)
{
    pico_chip_flush_cache();
    usb_off_since_us = pico_time_us();
}
#else
static void stop_usb(void)
{
}

static void poll_usb(void)
{
}

static void leave_low(void)
{
}
#endif

void pico_put(uint8_t byte)
{
#ifdef WC_FLASH
    if (to_usb) {
        if (usb_on)
            pico_usb_put(byte);
        return;
    }
#endif
    do
        poll_uart();
    while (REG(UART0 + UART_FR) & TX_FULL);
    REG(UART0 + UART_DR) = byte;
}

/* Wait until the last bit has left the UART. Only then may clocks change. */
static void flush_uart(void)
{
    while (REG(UART0 + UART_FR) & BUSY) {
    }
}

WC_AT_NOMINAL static void start_uart(void)
{
    uint32_t divisor = (PERIPHERAL_HZ * 4u + BAUD / 2u) / BAUD; /* in 1/64 */
    REG(IO_BANK0 + 4) = 2;
    REG(IO_BANK0 + 12) = 2;
    REG(UART0 + UART_IBRD) = divisor >> 6;
    REG(UART0 + UART_FBRD) = divisor & 63u;
    REG(UART0 + UART_LCR_H) = 0x70; /* 8 bits, FIFOs */
    REG(UART0 + UART_CR) = 0x301;
}

uint32_t pico_time_us(void)
{
    return REG(TIMER0 + 0x28); /* TIMERAWL */
}

/* --- clocks ----------------------------------------------------------------------------------------------------------------- */

void pico_reset_peripherals(uint32_t bits)
{
    SET(RESETS) = bits;
    CLEAR(RESETS) = bits;
    while ((REG(RESETS + 8) & bits) != bits) {
    }
}

/* clk_sys runs from the 48 MHz PLL, or from the 12 MHz crystal while the voltage is low. clk_peri stays at 48 MHz. */
static void run_fast(void)
{
    while (!(REG(PLL_USB) & 1u << 31)) { /* it may have lost its lock at the low voltage */
    }
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

WC_AT_NOMINAL static void start_clocks(void)
{
    REG(CLOCKS + CLK_RESUS_CTRL) = 0; /* no resuscitation */
    REG(XOSC + 0x0c) = 282;
    REG(XOSC) = 0xaa0u | 0xfabu << 12;
    while (!(REG(XOSC + 4) & 1u << 31)) {
    }
    CLEAR(CLOCKS + CLK_SYS_CTRL) = 1; /* first off the auxiliary source: it must not change while it is selected */
    while (REG(CLOCKS + CLK_SYS_SELECTED) != 1u) {
    }
    REG(CLOCKS + CLK_REF_CTRL) = (REG(CLOCKS + CLK_REF_CTRL) & ~3u) | 2u;
    while (REG(CLOCKS + CLK_REF_SELECTED) != 4u) {
    }
    pico_reset_peripherals(RESET_PLL_USB);
    REG(PLL_USB) = 1;
    REG(PLL_USB + 8) = 100;
    CLEAR(PLL_USB + 4) = 0x21;
    while (!(REG(PLL_USB) & 1u << 31)) {
    }
    REG(PLL_USB + 0x0c) = 5u << 16 | 5u << 12;
    CLEAR(PLL_USB + 4) = 8;
    run_fast();
    REG(CLOCKS + CLK_PERI_CTRL) = 2u << 5; /* clk_peri always from the PLL */
    REG(CLOCKS + CLK_PERI_CTRL) = 2u << 5 | 1u << 11;
    REG(CLOCKS + CLK_ADC_CTRL) = 1u << 11; /* from the same PLL */
#ifdef WC_FLASH
    REG(CLOCKS + CLK_USB_CTRL) = 1u << 11; /* from the same PLL */
#endif
    REG(CLOCKS + FC0_REF_KHZ) = 12000;
    REG(CLOCKS + FC0_INTERVAL) = 8; /* 2^8 us */
    /* Lowest drive, none at random: the boot ROM may have chosen otherwise. */
    REG(ROSC + 4) = 0x96960000u;
    REG(ROSC + 8) = 0x96960000u;
}

/* --- the voltage ------------------------------------------------------------------------------------------------------------ */

static uint32_t low_since_us; /* when the low code was set */

static void wait_until(uint32_t since_us, uint32_t us)
{
    while (pico_time_us() - since_us < us) {
    }
}

uint32_t pico_count(void)
{
    uint32_t start = pico_time_us(), done;
    REG(CLOCKS + FC0_SRC) = RING_OSCILLATOR; /* starts a count */
    wait_until(start, 20);
    do
        done = REG(CLOCKS + FC0_SRC + 4) & COUNTER_DONE;
    while (!done && pico_time_us() - start < 1000u);
    return done ? REG(CLOCKS + FC0_SRC + 8) : 0;
}

uint16_t pico_temperature(void)
{
    uint32_t sum = 0;
    for (int i = 0; i < 16; i++) {
        SET(ADC) = 1u << 2; /* START_ONCE */
        while (!(REG(ADC) & 1u << 8)) {
        }
        sum += REG(ADC + 4);
    }
    return (uint16_t)sum;
}

void pico_prepare_low(wc_pulse *result)
{
    flush_uart();
    pico_keep_alive();
    stop_usb();
    result->temperature = pico_temperature();
    run_slow();
    result->counts[0] = pico_count();
    pico_chip_set_brown_out(false);
}

void pico_wait_regulator(wc_pulse *result)
{
    uint32_t since_us = pico_time_us();
    while (!pico_chip_regulator_ok() && pico_time_us() - since_us < 100000u) {
    }
    wait_until(since_us, SETTLE_US);
    pico_chip_set_brown_out(true);
    result->counts[2] = pico_count();
    run_fast();
    leave_low();
    result->after_code = pico_chip_code();
    result->after_ok = pico_chip_regulator_ok();
}

void pico_lower(uint8_t code, uint32_t dwell_us, wc_pulse *result)
{
    pico_prepare_low(result);
    pico_start_guard(dwell_us + GUARD_US);
    low_since_us = pico_time_us();
    pico_chip_set_code(code);
    wait_until(low_since_us, dwell_us > COUNT_US ? dwell_us - COUNT_US : 0);
    result->counts[1] = pico_count();
    wait_until(low_since_us, dwell_us);
}

void pico_restore(wc_pulse *result)
{
    result->low_code = pico_chip_code();
    result->low_ok = pico_chip_regulator_ok();
    result->dwell_us = pico_time_us() - low_since_us;
    pico_chip_set_code(NOMINAL);
    pico_end_guard();
    pico_wait_regulator(result);
}

/* --- the watchdog ----------------------------------------------------------------------------------------------------------- */

void pico_keep_alive(void)
{
    REG(WATCHDOG + 4) = 0xffffffu;
    poll_uart();
    poll_usb();
}

void pico_set_boot_vector(uint32_t address, void (*to)(void))
{
    uint32_t pc = (uint32_t)to | 1u;
    REG(address) = VECTOR_MAGIC;
    REG(address + 4) = pc ^ (0u - VECTOR_MAGIC);
    REG(address + 8) = (uint32_t)pico_stack_top;
    REG(address + 12) = pc;
}

/* Armed before anything that may hang. A reset by the watchdog keeps SRAM: the boot ROM then copies a flash image to RAM again, and
 * enters a RAM image as it lies in SRAM. The voltage is nominal by then: the guard's DMA sets it long before (see pulse.c). */
static void arm_watchdog(void)
{
#ifdef WC_FLASH
    REG(WATCHDOG + SCRATCH4) = 0;
#else
    pico_set_boot_vector(WATCHDOG + SCRATCH4, pico_entry);
#endif
    pico_chip_prepare_watchdog();
    REG(PSM_WDSEL) = PSM_ALL_BUT_OSCILLATORS;
    REG(WATCHDOG + 4) = 0xffffffu;
    REG(WATCHDOG) = 1u << 30;
}

#ifdef WC_FLASH
WC_AT_NOMINAL void pico_serve_line(uint32_t us)
{
    uint32_t since_us = pico_time_us();
    while (pico_time_us() - since_us < us) {
        pico_keep_alive();
        (void)next_usb_byte(); /* also sends what waits */
    }
}
#endif

/* --- the loop --------------------------------------------------------------------------------------------------------------- */

static void begin(void)
{
    for (uint32_t *word = pico_bss_start; word < pico_bss_end; word++)
        *word = 0;
    wc_start(&core, &pico_chip_board);
}

__attribute__((noreturn)) void pico_main(void)
{
    uint32_t state;
    wc_pulse result = {0};
    arm_watchdog();
    pico_chip_set_nominal();
    bool woke = pico_chip_woke_up(&state, &result) && state == wc_crc_words(pico_bss_start, (uint32_t)(pico_bss_end - pico_bss_start));
    if (!woke)
        begin();
    ring_end = ring_start = 0;
    start_clocks();
    pico_chip_start_peripherals();
    start_uart();
#ifdef WC_FLASH
    usb_on = false;
    pico_chip_read_serial(pico_serial);
#endif
    pico_wait_regulator(&result);
    if (woke)
        wc_wake(&core, &result);
    for (uint8_t turns = 0;; turns++) {
        if (turns == 0)
            pico_keep_alive();
        if (ring_end != ring_start) {
#ifdef WC_FLASH
            to_usb = false;
#endif
            wc_feed(&core, ring[ring_start++ % RING]);
            continue;
        }
#ifdef WC_FLASH
        int byte = next_usb_byte();
        if (byte >= 0) {
            to_usb = true;
            wc_feed(&core, (uint8_t)byte);
            continue;
        }
#endif
        poll_uart();
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

void __aeabi_memclr4(void *to, unsigned long count)
{
    memset(to, 0, count);
}

void *memcpy(void *to, const void *from, unsigned long count)
{
    volatile uint8_t *bytes = to;
    const uint8_t *source = from;
    while (count--)
        *bytes++ = *source++;
    return to;
}
