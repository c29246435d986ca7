/** The part of the protocol buffers wire format that ONNX files need: varints, fixed32 and bytes. */

const WIRE_VARINT = 0;
const WIRE_BYTES = 2;
const WIRE_FIXED32 = 5;

function varint(value: number | bigint): number[] {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  return bytes;
}

/** One message being written, field by field. */
export class MessageWriter {
  readonly #parts: Uint8Array[] = [];
  #sizeBytes = 0;

  integer(field: number, value: number | bigint): this {
    return this.#push(Uint8Array.from([...varint((field << 3) | WIRE_VARINT), ...varint(value)]));
  }

  float(field: number, value: number): this {
    this.#push(Uint8Array.from(varint((field << 3) | WIRE_FIXED32)));
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setFloat32(0, value, true);
    return this.#push(bytes);
  }

  text(field: number, value: string): this {
    return this.bytes(field, Buffer.from(value, 'utf8'));
  }

  bytes(field: number, value: Uint8Array): this {
    this.#push(Uint8Array.from([...varint((field << 3) | WIRE_BYTES), ...varint(value.byteLength)]));
    return this.#push(value);
  }

  message(field: number, write: (message: MessageWriter) => void): this {
    const inner = new MessageWriter();
    write(inner);
    return this.bytes(field, inner.finish());
  }

  finish(): Uint8Array {
    const whole = new Uint8Array(this.#sizeBytes);
    let at = 0;
    for (const part of this.#parts) {
      whole.set(part, at);
      at += part.byteLength;
    }
    return whole;
  }

  #push(part: Uint8Array): this {
    this.#parts.push(part);
    this.#sizeBytes += part.byteLength;
    return this;
  }
}
