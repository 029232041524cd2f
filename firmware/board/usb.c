/* USB of the flash image: a CDC ACM device, so every system has the driver. Polled, without interrupts.
 *
 * All of this stays in flash, and nothing of it runs while the voltage is low: the controller is in reset then, which takes the
 * pull-up off the bus. Afterwards the device starts anew and the host finds it again by its serial number. What a host did not
 * read until then is lost; it asks again.
 *
 * Sources: data sheets of the RP2040 (4.1) and RP2350 (12.7), USB 2.0 (chapter 9), CDC 1.2 and its PSTN subclass. */
#include "pico.h"
#include "chip.h"

#ifdef WC_FLASH

#define USB 0x50110000u
#define DPRAM 0x50100000u
#define BYTES(offset) ((volatile uint8_t *)(DPRAM + (offset)))
#define DATA __attribute__((section(".flash_data")))

enum { ADDRESS = 0x00, MAIN_CTRL = 0x40, SIE_CTRL = 0x4c, SIE_STATUS = 0x50, BUFF_STATUS = 0x58, STALL_ARM = 0x68, MUXING = 0x74 };
enum { POWER = 0x78 };
enum { TO_PHY = 1u | 1u << 3, VBUS_SEEN = 1u << 2 | 1u << 3 };                       /* MUXING, POWER */
enum { PULL_UP = 1u << 16, EP0_NOTES = 1u << 29, BUS_RESET = 1u << 19, SETUP = 1u << 17 }; /* SIE_CTRL, SIE_STATUS */
enum { EP0_IN = 1u << 0, EP0_OUT = 1u << 1, DATA_IN = 1u << 4, DATA_OUT = 1u << 5 };  /* BUFF_STATUS; data are on endpoint 2 */
#define ENDPOINT_ON (1u << 31 | 1u << 29)
enum { BULK = 2u << 26, INTERRUPT = 3u << 26 };
enum { FULL = 1u << 15, LAST = 1u << 14, DATA1 = 1u << 13, STALL = 1u << 11, AVAILABLE = 1u << 10, LENGTH = 0x3ffu };

/* The DPRAM: controls of endpoints, controls of their buffers, buffers. */
enum { SETUP_PACKET = 0x00, EP1_IN = 0x08, EP2_IN = 0x10, EP2_OUT = 0x14 };
enum { EP0_IN_BUFFER = 0x80, EP0_OUT_BUFFER = 0x84, EP2_IN_BUFFER = 0x90, EP2_OUT_BUFFER = 0x94 };
enum { EP0_BYTES = 0x100, NOTE_BYTES = 0x180, OUT_BYTES = 0x1c0, IN_BYTES = 0x200, LINE_CODING = 0x280, ANSWER = 0x300, END = 0x400 };
enum { PACKET = 64, WAIT_US = 100000, LINE_CODING_BYTES = 7 };

enum { GET_STATUS, CLEAR_FEATURE, SET_FEATURE = 3, SET_ADDRESS = 5, GET_DESCRIPTOR, GET_CONFIGURATION = 8, SET_CONFIGURATION,
       GET_INTERFACE, SET_INTERFACE };
enum { SET_LINE_CODING = 0x20, GET_LINE_CODING, SET_CONTROL_LINE_STATE, SEND_BREAK, CLASS = 1 << 5 };
enum { DEVICE = 1, CONFIGURATION, STRING };

DATA static const uint8_t device[] = {
    18, DEVICE, 0x00, 0x02, 0xef, 0x02, 0x01, PACKET, /* USB 2.0; functions are in association descriptors */
    0x8a, 0x2e, USB_PRODUCT & 255, USB_PRODUCT >> 8, 0x00, 0x02, 1, 2, 3, 1, /* vendor, product, version 2.0, three strings */
};
DATA static const uint8_t configuration[] = {
    9, CONFIGURATION, 75, 0, 2, 1, 0, 0x80, 50,      /* two interfaces, powered by the bus, 100 mA */
    8, 11, 0, 2, 0x02, 0x02, 0x00, 0,                /* association: CDC ACM */
    9, 4, 0, 0, 1, 0x02, 0x02, 0x00, 0,              /* interface 0: control, one endpoint */
    5, 0x24, 0x00, 0x20, 0x01,                       /* CDC 1.20 */
    5, 0x24, 0x01, 0x00, 1,                          /* no call management */
    4, 0x24, 0x02, 0x02,                             /* line coding and line state are understood */
    5, 0x24, 0x06, 0, 1,                             /* interface 0 controls interface 1 */
    7, 5, 0x81, 0x03, 8, 0, 16,                      /* endpoint 1 in: notifications, of which there are none */
    9, 4, 1, 0, 2, 0x0a, 0x00, 0x00, 0,              /* interface 1: data, two endpoints */
    7, 5, 0x02, 0x02, PACKET, 0, 0,                  /* endpoint 2 out and in: bulk */
    7, 5, 0x82, 0x02, PACKET, 0, 0,
};
_Static_assert(sizeof configuration == 75, "wTotalLength");
DATA static const char maker[] = "Weakcell", product[] = "Weakcell " CHIP_NAME;
DATA static const uint8_t default_coding[LINE_CODING_BYTES] = {BAUD & 255, BAUD >> 8 & 255, BAUD >> 16, 0, 0, 0, 8};

static struct {
    uint8_t configured, halted, address;  /* halted: bit 0 IN, bit 1 OUT; address: to take on when the request has ended */
    uint8_t answer_at, answer_end, answer_pid; /* of the answer to a control request */
    uint8_t in_pid, in_flight, half, filled, full_sent, deaf; /* data to the host; half: the buffer that is filled; deaf: it does not read */
    uint8_t out_pid, out_at, out_end;     /* data from the host */
} usb;

/* Give a buffer to the controller. AVAILABLE is set last, since the controller runs on another clock. */
WC_AT_NOMINAL static void arm(uint32_t control, uint32_t pid, uint32_t settings)
{
    uint32_t word = settings | LAST | (pid ? DATA1 : 0u);
    REG(DPRAM + control) = word;
    __asm volatile("nop\n nop\n nop\n nop\n nop\n nop" ::: "memory");
    REG(DPRAM + control) = word | AVAILABLE;
}

WC_AT_NOMINAL static void arm_out(void)
{
    usb.out_at = usb.out_end = 0;
    arm(EP2_OUT_BUFFER, usb.out_pid, PACKET);
}

/* Take one of the data endpoints into its state after SET_CONFIGURATION or CLEAR_FEATURE: the next packet is DATA0. */
WC_AT_NOMINAL static void restart_endpoint(bool in)
{
    if (in) {
        usb.in_pid = usb.in_flight = usb.filled = usb.full_sent = usb.deaf = 0;
        REG(DPRAM + EP2_IN_BUFFER) = 0;
    } else {
        usb.out_pid = 0;
        arm_out();
    }
}

WC_AT_NOMINAL static void configure(bool on)
{
    usb.configured = on;
    usb.halted = usb.out_at = usb.out_end = 0;
    REG(DPRAM + EP1_IN) = on ? ENDPOINT_ON | INTERRUPT | NOTE_BYTES : 0;
    REG(DPRAM + EP2_IN) = on ? ENDPOINT_ON | BULK | IN_BYTES : 0;
    REG(DPRAM + EP2_OUT) = on ? ENDPOINT_ON | BULK | OUT_BYTES : 0;
    REG(DPRAM + EP2_OUT_BUFFER) = 0;
    restart_endpoint(true);
    if (on)
        restart_endpoint(false);
}

/* The state after a reset of the bus. */
WC_AT_NOMINAL static void forget(void)
{
    usb.address = usb.answer_at = usb.answer_end = 0;
    REG(USB + ADDRESS) = 0;
    REG(USB + BUFF_STATUS) = 0xffffffffu;
    REG(DPRAM + EP0_IN_BUFFER) = REG(DPRAM + EP0_OUT_BUFFER) = 0;
    configure(false);
}

WC_AT_NOMINAL void pico_usb_start(void)
{
    pico_reset_peripherals(RESET_USB);
    for (uint32_t offset = 0; offset < END; offset += 4)
        REG(DPRAM + offset) = 0;
    for (uint32_t i = 0; i < LINE_CODING_BYTES; i++)
        BYTES(LINE_CODING)[i] = default_coding[i];
    forget();
    REG(USB + MUXING) = TO_PHY;
    REG(USB + POWER) = VBUS_SEEN; /* no pin senses VBUS: the board lives on it */
    REG(USB + MAIN_CTRL) = 1;     /* on, as a device; on the RP2350 this also connects the transceiver */
    REG(USB + SIE_CTRL) = EP0_NOTES | PULL_UP;
}

/* --- control requests ------------------------------------------------------------------------------------------------------- */

WC_AT_NOMINAL static void append(uint8_t byte)
{
    BYTES(ANSWER)[usb.answer_end++] = byte;
}

WC_AT_NOMINAL static void append_all(const volatile uint8_t *from, uint32_t count)
{
    while (count--)
        append(*from++);
}

WC_AT_NOMINAL static void append_string(uint32_t index)
{
    append(0); /* the length follows */
    append(STRING);
    if (index == 0) {
        append(0x09); /* English */
        append(0x04);
    } else if (index == 3) {
        append('W');
        append(0);
        append('C');
        append(0);
        for (int digit = 15; digit >= 0; digit--) {
            uint32_t value = pico_serial[digit / 8] >> 4 * (digit % 8) & 15u;
            append((uint8_t)(value < 10 ? '0' + value : 'A' - 10 + value));
            append(0);
        }
    } else {
        for (const char *from = index == 1 ? maker : product; *from; from++) {
            append((uint8_t)*from);
            append(0);
        }
    }
    BYTES(ANSWER)[0] = usb.answer_end;
}

/* Send the next packet of the answer to a control request; an empty one is the end of a request without data. */
WC_AT_NOMINAL static void send_answer(void)
{
    uint8_t length = 0;
    for (; length < PACKET && usb.answer_at < usb.answer_end; length++)
        BYTES(EP0_BYTES)[length] = BYTES(ANSWER)[usb.answer_at++];
    arm(EP0_IN_BUFFER, usb.answer_pid, FULL | length);
    usb.answer_pid ^= 1;
}

WC_AT_NOMINAL static bool change_halt(uint32_t endpoint, bool halt)
{
    bool in = endpoint == 0x82;
    if (endpoint == 0x81)
        return true; /* nothing is ever sent there */
    if (!in && endpoint != 0x02)
        return false;
    usb.halted = (uint8_t)((usb.halted & ~(in ? 1 : 2)) | (halt ? (in ? 1 : 2) : 0));
    if (halt)
        REG(DPRAM + (in ? EP2_IN_BUFFER : EP2_OUT_BUFFER)) = STALL;
    else
        restart_endpoint(in);
    return true;
}

/* Execute a request without data from the host, or prepare the answer. False if it is not understood. */
WC_AT_NOMINAL static bool execute(uint32_t type, uint32_t request, uint32_t value, uint32_t index)
{
    bool endpoint = (type & 31u) == 2;
    if ((type & 0x60u) == CLASS) {
        if (request == GET_LINE_CODING)
            append_all(BYTES(LINE_CODING), LINE_CODING_BYTES);
        return request == GET_LINE_CODING || request == SET_CONTROL_LINE_STATE || request == SEND_BREAK;
    }
    if (type & 0x60u)
        return false;
    if (request == GET_STATUS) {
        append(endpoint && ((index == 0x82 && usb.halted & 1) || (index == 0x02 && usb.halted & 2)));
        append(0);
    } else if (request == CLEAR_FEATURE || request == SET_FEATURE) {
        return endpoint && value == 0 && usb.configured && change_halt(index, request == SET_FEATURE);
    } else if (request == SET_ADDRESS) {
        usb.address = (uint8_t)value; /* the answer still goes out from the old one */
    } else if (request == GET_DESCRIPTOR && value >> 8 == DEVICE) {
        append_all(device, sizeof device);
    } else if (request == GET_DESCRIPTOR && value >> 8 == CONFIGURATION) {
        append_all(configuration, sizeof configuration);
    } else if (request == GET_DESCRIPTOR && value >> 8 == STRING && (value & 255u) <= 3) {
        append_string(value & 255u);
    } else if (request == GET_CONFIGURATION) {
        append(usb.configured);
    } else if (request == SET_CONFIGURATION && value <= 1) {
        configure(value == 1);
    } else if (request == GET_INTERFACE && usb.configured && index <= 1) {
        append(0);
    } else {
        return request == SET_INTERFACE && usb.configured && index <= 1 && value == 0;
    }
    return true;
}

WC_AT_NOMINAL static void begin_request(void)
{
    volatile uint8_t *packet = BYTES(SETUP_PACKET);
    uint32_t type = packet[0], request = packet[1], value = packet[2] | (uint32_t)packet[3] << 8;
    uint32_t index = packet[4] | (uint32_t)packet[5] << 8, length = packet[6] | (uint32_t)packet[7] << 8;
    usb.answer_at = usb.answer_end = usb.address = 0;
    usb.answer_pid = 1;
    REG(DPRAM + EP0_IN_BUFFER) = REG(DPRAM + EP0_OUT_BUFFER) = 0;
    if ((type & 0xe0u) == CLASS && request == SET_LINE_CODING && length == LINE_CODING_BYTES) {
        arm(EP0_OUT_BUFFER, 1, PACKET);
    } else if ((!(type & 0x80u) && length != 0) || !execute(type, request, value, index)) {
        REG(USB + STALL_ARM) = 3;
        REG(DPRAM + EP0_IN_BUFFER) = STALL;
        REG(DPRAM + EP0_OUT_BUFFER) = STALL;
    } else {
        if (usb.answer_end > length)
            usb.answer_end = (uint8_t)length;
        send_answer();
    }
}

/* A packet to the host has arrived: go on with the answer, or let the host end the request. */
WC_AT_NOMINAL static void go_on(void)
{
    if (usb.address) {
        REG(USB + ADDRESS) = usb.address;
        usb.address = 0;
    } else if (usb.answer_at < usb.answer_end) {
        send_answer();
    } else if (usb.answer_end) {
        usb.answer_end = usb.answer_at = 0;
        arm(EP0_OUT_BUFFER, 1, PACKET);
    }
}

/* A packet from the host on endpoint 0: a line coding, or the empty one that ends a request with an answer. */
WC_AT_NOMINAL static void take_line_coding(void)
{
    if ((REG(DPRAM + EP0_OUT_BUFFER) & LENGTH) != LINE_CODING_BYTES) {
        arm(EP0_OUT_BUFFER, 1, PACKET); /* a host that missed the handshake sends it again */
        return;
    }
    for (uint32_t i = 0; i < LINE_CODING_BYTES; i++)
        BYTES(LINE_CODING)[i] = BYTES(EP0_BYTES)[i];
    send_answer();
}

/* --- data ------------------------------------------------------------------------------------------------------------------- */

/* Send the buffer that was filled, and fill the other one from now on. */
WC_AT_NOMINAL static void send_packet(void)
{
    REG(DPRAM + EP2_IN) = ENDPOINT_ON | BULK | (IN_BYTES + PACKET * usb.half);
    arm(EP2_IN_BUFFER, usb.in_pid, FULL | usb.filled);
    usb.full_sent = usb.filled == PACKET;
    usb.in_pid ^= 1;
    usb.in_flight = 1;
    usb.half ^= 1;
    usb.filled = 0;
}

WC_AT_NOMINAL void pico_usb_poll(void)
{
    uint32_t status = REG(USB + SIE_STATUS);
    if (status & BUS_RESET) {
        REG(USB + SIE_STATUS) = BUS_RESET;
        forget();
    }
    uint32_t done = REG(USB + BUFF_STATUS);
    if (done) {
        REG(USB + BUFF_STATUS) = done;
        if (done & EP0_IN)
            go_on();
        if (done & EP0_OUT)
            take_line_coding();
        if (done & DATA_IN)
            usb.in_flight = usb.deaf = 0;
        if (done & DATA_OUT) {
            usb.out_at = 0;
            usb.out_end = (uint8_t)(REG(DPRAM + EP2_OUT_BUFFER) & LENGTH);
            usb.out_pid ^= 1;
            if (usb.out_end == 0)
                arm_out();
        }
    }
    if (status & SETUP) {
        REG(USB + SIE_STATUS) = SETUP;
        begin_request();
    }
}

WC_AT_NOMINAL int pico_usb_get(void)
{
    if (usb.out_at == usb.out_end) {
        pico_usb_poll();
        /* Nothing to do: send what there is. After a full packet, an empty one tells the host that it was the last. */
        if (usb.configured && !usb.in_flight && !(usb.halted & 1) && (usb.filled || usb.full_sent))
            send_packet();
        return -1;
    }
    int byte = BYTES(OUT_BYTES)[usb.out_at++];
    if (usb.out_at == usb.out_end && !(usb.halted & 2))
        arm_out();
    return byte;
}

WC_AT_NOMINAL void pico_usb_put(uint8_t byte)
{
    if (!usb.configured)
        return;
    BYTES(IN_BYTES + PACKET * usb.half)[usb.filled++] = byte;
    if (usb.filled < PACKET)
        return;
    uint32_t since_us = pico_time_us();
    while (usb.in_flight && usb.configured && !usb.deaf && pico_time_us() - since_us < WAIT_US)
        pico_usb_poll();
    usb.deaf = usb.in_flight;
    if (usb.in_flight || usb.halted & 1)
        usb.filled = 0; /* a host that does not read loses it */
    else if (usb.configured)
        send_packet();
}

#endif
