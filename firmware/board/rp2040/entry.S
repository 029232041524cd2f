/* RP2040: the boot ROM jumps to the lowest address of a RAM image; the first word is code. The vector table lies over it: its first
 * word, the stack, is only used by a reset, and interrupts stay masked, so faults are all that it needs. */
    .syntax unified
    .thumb
    .section .entry, "ax"
    .align 8
    .thumb_func
    .global pico_entry
    .type pico_entry, %function
pico_vectors:
pico_entry:
    b start
    nop
    .rept 15
    .word pico_fault
    .endr
start:
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
