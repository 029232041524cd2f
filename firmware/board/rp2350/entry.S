/* RP2350: vector table, then the IMAGE_DEF block that the boot ROM looks for in the first 4 KB of a RAM image. */
    .syntax unified
    .thumb
    .section .entry, "ax"
    .global pico_vectors
    .align 7
pico_vectors:
    .word pico_stack_top
    .word pico_entry
    .rept 14
    .word pico_fault
    .endr

    .word 0xffffded3            /* block start */
    .byte 0x42, 0x01            /* item: image type, one word */
    .hword 0x1021               /* executable, secure, ARM, RP2350 */
    .byte 0x03, 0x02, 0x00, 0x00 /* item: vector table, two words */
    .word pico_vectors
    .byte 0xff, 0x03, 0x00, 0x00 /* last item; three words before it */
    .word 0                     /* the only block: a loop to itself */
    .word 0xab123579            /* block end */

    .thumb_func
    .global pico_entry
    .type pico_entry, %function
pico_entry:
    cpsid i
    ldr r0, =pico_stack_top
    mov sp, r0
    ldr r0, =pico_vectors
    ldr r1, =0xe000ed08         /* VTOR */
    str r0, [r1]
    bl pico_main
    .thumb_func
    .type pico_fault, %function
pico_fault:
    b pico_fault                     /* until the watchdog resets the chip */
    .pool
