/* RP2040, second stage of the flash image: 252 bytes that the boot ROM copies to the end of SRAM5 and runs when the CRC behind them
 * is right. It sets the SSI up for plain 03h reads (any flash chip knows them), copies the image to SRAM4 and goes there. */
    .syntax unified
    .thumb
    .section .entry, "ax"
    .thumb_func
    .global pico_boot
    .type pico_boot, %function
pico_boot:
    cpsid i
    ldr r3, =0x18000000         /* XIP_SSI */
    movs r0, #0
    str r0, [r3, #0x08]         /* SSIENR: off */
    str r0, [r3, #0x04]         /* CTRLR1: one word at a time */
    movs r0, #4
    str r0, [r3, #0x14]         /* BAUDR: clk_sys / 4 */
    ldr r0, =0x001f0300         /* CTRLR0: one wire, 32 bits of data after instruction and address */
    str r0, [r3, #0x00]
    ldr r0, =0x03000218         /* SPI_CTRLR0: instruction 03h of 8 bits, address of 24 bits */
    ldr r1, =0x180000f4
    str r0, [r1]
    movs r0, #1
    str r0, [r3, #0x08]
    ldr r0, =0x10000100         /* the image, behind these 256 bytes */
    ldr r1, =IMAGE_START
    ldr r2, =IMAGE_START + IMAGE_BYTES
copy:
    ldmia r0!, {r3}
    stmia r1!, {r3}
    cmp r1, r2
    blo copy
    ldr r0, =IMAGE_START + 1
    bx r0
    .pool
