/* RP2040: the boot ROM jumps to the lowest address of a RAM image; the first word is code. */
    .syntax unified
    .thumb
    .section .entry, "ax"
    .align 8
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
    .align 8
vectors:
    .word stack_top
    .word entry
    .rept 46
    .word fault
    .endr
