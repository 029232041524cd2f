/* RP2350, second stage of the flash image, run in place: the boot ROM has set flash up, finds IMAGE_DEF in the first 4 KB and takes
 * stack and entry from the vector table it names. The code copies the image to SRAM8 and goes there. */
    .syntax unified
    .thumb
    .section .entry, "ax"
    .global pico_vectors
pico_vectors:
    .word IMAGE_START + 0x2000  /* the stack: the end of SRAM9 */
    .word pico_boot
    .rept 14
    .word stop
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
    .global pico_boot
    .type pico_boot, %function
pico_boot:
    cpsid i
    ldr r0, =0x10000100         /* the image, behind these 256 bytes */
    ldr r1, =IMAGE_START
    ldr r2, =IMAGE_START + IMAGE_BYTES
copy:
    ldmia r0!, {r3}
    stmia r1!, {r3}
    cmp r1, r2
    blo copy
    dsb
    isb
    ldr r0, =IMAGE_START
    ldr r0, [r0, #4]            /* the entry in the image's own vector table */
    bx r0
    .thumb_func
    .type stop, %function
stop:
    b stop
    .pool
