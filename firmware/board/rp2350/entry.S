/* RP2350: vector table, then the IMAGE_DEF block that the boot ROM looks for in the first 4 KB of a RAM image. */
    .syntax unified
    .thumb
    .section .entry, "ax"
    .global vectors
    .align 7
vectors:
    .word stack_top
    .word entry
    .rept 14
    .word fault
    .endr

    .word 0xffffded3            /* block start */
    .byte 0x42, 0x01            /* item: image type, one word */
    .hword 0x1021               /* executable, secure, ARM, RP2350 */
    .byte 0x03, 0x02, 0x00, 0x00 /* item: vector table, two words */
    .word vectors
    .byte 0xff, 0x03, 0x00, 0x00 /* last item; three words before it */
    .word 0                     /* the only block: a loop to itself */
    .word 0xab123579            /* block end */

    .thumb_func
    .global entry
    .type entry, %function
entry:
    cpsid i
    ldr r0, =stack_top
    mov sp, r0
    ldr r0, =vectors
    ldr r1, =0xe000ed08         /* VTOR */
    str r0, [r1]
    bl board_main
    .thumb_func
    .type fault, %function
fault:
    b fault                     /* the watchdog ends this */
    .pool
