/* The firmware's USB driver and core as a library for tests, on a model of the controller that the test provides.
 *
 * The driver is the unmodified usb.c. A register is an object here: reading and writing it calls the model. The controller's memory
 * lies at its own address in this process. Compiled as C++ for these objects only. */
#include <stdint.h>
#include <sys/mman.h>

extern "C" {
typedef uint32_t load_fn(uint32_t address);
typedef void store_fn(uint32_t address, uint32_t value);
static load_fn *load;
static store_fn *store;
}

struct Register {
    uint32_t address;
    operator uint32_t() const { return load(address); }
    uint32_t operator=(uint32_t value) const { store(address, value); return value; }
    uint32_t operator=(const Register &other) const { return *this = (uint32_t)other; }
};
#define REG(at) (Register{(uint32_t)(at)})
#define _Static_assert static_assert

extern "C" {
#include "../../firmware/board/usb.c"

enum { MOST_IDLE_POLLS = 3 };
uint32_t pico_serial[2] = {0x89abcdefu, 0x01234567u};
static uint32_t now_us;
static uint32_t idle_polls;

wc_core *native_core(void);
wc_board *native_board(void);
void native_start(void);

uint32_t pico_time_us(void)
{
    return now_us += 5;
}

void pico_reset_peripherals(uint32_t bits)
{
    store(RESETS, bits);
}

void native_usb_pass_time(uint32_t us)
{
    now_us += us;
}

/* Something happened on the bus: the firmware has not waited in vain. */
void native_usb_busy(void)
{
    idle_polls = 0;
}

/* Map the controller's memory; NULL if its address is taken in this process. */
void *native_usb_begin(load_fn *loads, store_fn *stores)
{
    void *memory = mmap((void *)(uintptr_t)DPRAM, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (memory != (void *)(uintptr_t)DPRAM)
        return 0;
    load = loads;
    store = stores;
    native_start();
    native_board()->send_byte = pico_usb_put;
    native_board()->keep_alive = pico_usb_poll;
    native_board()->time_us = pico_time_us;
    pico_usb_start();
    return memory;
}

/* The main loop, until it has waited in vain. */
void native_usb_run(void)
{
    for (idle_polls = 0; idle_polls < MOST_IDLE_POLLS;) {
        int byte = pico_usb_get();
        if (byte >= 0) {
            idle_polls = 0;
            wc_feed(native_core(), (uint8_t)byte);
        } else {
            idle_polls++;
        }
    }
}
}
