// The RP2040 image on rp2040js (MIT, npm): a second emulator, with its own DMA, timer and interrupt controller.
//
//     node rp2040js.mjs IMAGE.uf2 PATH/node_modules/rp2040js/dist/esm/index.js
//
// A line of hex on stdin is received by the board; a line of hex on stdout is its answer. `log` prints the regulator's codes
// with the time of each write in us, `cycles` the most cycles from the first byte of a request to the first one of its answer.
// When the regulator falls, bit (i & 7) of every 997th byte i of the arena flips.
// Missing in rp2040js 1.4.1 and added here: regulator, PLL and ring oscillator registers, and the frequency counter (6,500 kHz at
// nominal voltage, half of that below). Wrong there and put right here: the DMA pacing timer has
// X and Y exchanged; WFI with interrupts masked enters the handler, where a chip only wakes.
import fs from 'node:fs';
import readline from 'node:readline';
import { pathToFileURL } from 'node:url';

const { Simulator, BasePeripheral, USBCDC } = await import(pathToFileURL(process.argv[3]));
const simulator = new Simulator(), board = simulator.rp2040, core = board.core, uart = board.uart[0];
const microseconds = () => Math.round(simulator.clock.nanos / 1000);
board.logger = { debug() {}, info() {}, warn() {}, error: console.error }; // stdout is for answers
const NOMINAL = 11, ARENA = 0x40000, CYCLE_NS = 83, IDLE = 300000;

const image = fs.readFileSync(process.argv[2]);
const first = image.readUInt32LE(12), fromFlash = first === 0x10000000;
for (let at = 0; at < image.length; at += 512)
  (fromFlash ? board.flash : board.sram).set(image.subarray(at + 32, at + 288),
    image.readUInt32LE(at + 12) - (fromFlash ? 0x10000000 : 0x20000000));

class Registers extends BasePeripheral {
  values = {};
  readUint32(offset) { return this.values[offset] ?? 0; }
  writeUint32(offset, value) { this.values[offset] = value >>> 0; }
}
class Pll extends Registers {
  readUint32(offset) { return (super.readUint32(offset) | (offset === 0 ? 1 << 31 : 0)) >>> 0; }
}
let code = NOMINAL;

// The host's end of USB. It knows a device only once, so there is a new one after every low voltage.
let port, fromUsb = [];
function plugIn() {
  port = new USBCDC(board.usbCtrl);
  port.onSerialData = (bytes) => fromUsb.push(...bytes);
}
plugIn();
const log = [];
class Regulator extends Registers {
  readUint32(offset) { return offset === 0 ? code << 4 | 1 << 12 | 1 : super.readUint32(offset); }
  writeUint32(offset, value) {
    super.writeUint32(offset, value);
    if (offset !== 0) return;
    const wanted = value >> 4 & 15;
    log.push([wanted, microseconds()]);
    if (wanted < code) plugIn();
    if (wanted < code) for (let i = 0; i < ARENA; i += 997) board.sram[i] ^= 1 << (i & 7);
    code = wanted;
  }
}
board.peripherals[0x40028] = new Pll(board, 'PLL_SYS');
board.peripherals[0x4002c] = new Pll(board, 'PLL_USB');
board.peripherals[0x40064] = new Regulator(board, 'VREG');
board.peripherals[0x40060] = new Registers(board, 'ROSC');
const clocks = board.peripherals[0x40008], read = clocks.readUint32.bind(clocks), write = clocks.writeUint32.bind(clocks);
let counted = [Infinity, 0];
clocks.readUint32 = (offset) => offset === 0x98 ? (microseconds() >= counted[0] ? 1 << 4 : 0) : offset === 0x9c ? counted[1] : read(offset);
clocks.writeUint32 = (offset, value) => {
  if (offset === 0x94) counted = [microseconds() + 256, 32 * (value === 3 ? (code < NOMINAL ? 3250 : 6500) : 0)];
  else if (offset !== 0x80 && offset !== 0x90) write(offset, value);
};
const readDma = board.dma.readUint32.bind(board.dma);
board.dma.readUint32 = (offset) => offset === 0x444 ? 0 : readDma(offset); // CHAN_ABORT: done
board.dma.getTimer = () => (board.dma.timer0 & 0xffff) / (board.dma.timer0 >>> 16) / 12;
const setInterrupt = core.setInterrupt.bind(core);
core.setInterrupt = (number, value) => {
  if (!(core.waiting && core.PM && value)) return setInterrupt(number, value);
  core.pendingInterrupts |= 1 << number;
  if (core.enabledInterrupts & 1 << number) core.waiting = false;
};

// The boot ROM's stand-in: a RAM image is entered at its lowest address; of flash, the second stage is copied to the end of SRAM and
// entered there if its CRC-32/MPEG-2 is right.
function crc32mpeg2(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte << 24;
    for (let bit = 0; bit < 8; bit++) crc = crc << 1 ^ (crc >>> 31 ? 0x04c11db7 : 0);
  }
  return crc >>> 0;
}
core.SP = 0x20042000;
core.PC = 0x20040000;
if (fromFlash) {
  const second = board.flash.subarray(0, 256);
  if (crc32mpeg2(second.subarray(0, 252)) !== new DataView(second.buffer, second.byteOffset).getUint32(252, true)) process.exit(1);
  board.sram.set(second, 0x41f00);
  core.PC = 0x20041f00;
}
let sent = [], cycles = 0, asked, most = 0;
uart.onByte = (byte) => {
  sent.push(byte);
  if (asked !== undefined) most = Math.max(most, cycles - asked);
  asked = undefined;
};

function run(received, overUsb) {
  let at = 0;
  for (let idle = 0; idle < (overUsb ? 4 : 1) * IDLE; idle++) {
    if (overUsb) while (at < received.length && port.initialized && !port.txFIFO.full) port.sendSerialByte(received[at++]);
    else while (at < received.length && !uart.rxFIFO.full) {
      uart.feedByte(received[at++]);
      asked ??= cycles;
    }
    const answers = sent.length + fromUsb.length;
    if (core.waiting) simulator.clock.tick(simulator.clock.nanosToNextAlarm);
    else {
      const before = cycles;
      cycles += core.executeInstruction();
      simulator.clock.tick((cycles - before) * CYCLE_NS);
    }
    if ((at < received.length && (!overUsb || port.initialized)) || sent.length + fromUsb.length !== answers || code !== NOMINAL) idle = 0;
  }
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  if (line === 'log') {
    console.log(JSON.stringify(log));
    continue;
  }
  if (line === 'cycles') {
    console.log(most);
    continue;
  }
  const overUsb = line.startsWith('usb ');
  sent = [], fromUsb = [];
  run(Buffer.from(overUsb ? line.slice(4) : line, 'hex'), overUsb);
  console.log(Buffer.from(overUsb ? fromUsb : sent).toString('hex'));
}
