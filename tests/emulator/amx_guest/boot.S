    .code16
    .globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    movb %dl, drive
    inb $0x92, %al
    orb $2, %al
    outb %al, $0x92
    movl $0x100000, %edi
next:
    movw $0, %ax
    movw %ax, %ds
    movw $packet, %si
    movb drive, %dl
    movb $0x42, %ah
    sti
    int $0x13
    cli
    jc fail
    lgdt gdt_pointer
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    jmp 1f
1:  movw $16, %bx
    movw %bx, %ds
    movw %bx, %es
    andb $0xfe, %al
    movl %eax, %cr0
    jmp 2f
2:  xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movl $0x10000, %esi
    movl $0x2000, %ecx
    cld
    addr32 rep movsl
    addl $64, lba
    decl chunks
    jnz next
    movl $0x70000, %edi
    xorl %eax, %eax
    movl $0xc00, %ecx
    addr32 rep stosl
    movw $0x7000, %ax
    movw %ax, %es
    movl $0x71003, %es:0
    movl $0x72003, %es:0x1000
    movl $0x83, %eax
    movl $0x2000, %edi
3:  movl %eax, %es:(%edi)
    addl $0x200000, %eax
    addl $8, %edi
    cmpl $0x3000, %edi
    jne 3b
    movl $0x70000, %eax
    movl %eax, %cr3
    movl $0x406a0, %eax         # PAE, PGE, OSFXSR, OSXMMEXCPT, OSXSAVE
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $0x80000023, %eax      # PG, NE, MP, PE
    movl %eax, %cr0
    ljmp $8, $long_mode
fail:
    movb $'!', %al
    outb %al, $0xe9
    hlt
    .code64
long_mode:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x9f000, %esp
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $0x600e7, %eax         # x87, SSE, AVX, AVX-512, TILECFG, TILEDATA
    xsetbv
    movl $0x100000, %eax
    call *%rax
    hlt
    .balign 8
gdt:
    .quad 0
    .quad 0x00af9a000000ffff
    .quad 0x00cf92000000ffff
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
drive: .byte 0
    .balign 4
packet: .byte 16, 0
    .word 64, 0, 0x1000
lba: .long 1, 0
chunks: .long CHUNKS
    .org 510
    .word 0xaa55
