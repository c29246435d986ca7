/** Whole numbers in proportion to shares. */

/**
 * Gives out `count` by share (largest remainders; of equals the first), never more than an entry's
 * `most`; what one cannot take goes to the others in their proportions.
 */
export function shareOut(count: number, entries: readonly { readonly share: number; readonly most: number }[]): readonly number[] {
  const given = entries.map(() => 0);
  for (let left = count; left > 0; ) {
    const open = entries.flatMap(({ share, most }, index) => ((given[index] as number) < most ? [{ index, share, room: most - (given[index] as number) }] : []));
    if (open.length === 0) break;
    const total = open.reduce((sum, { share }) => sum + share, 0);
    const exact = open.map(({ index, share, room }) => ({ index, room, wanted: (left * share) / total }));
    const whole = exact.map(({ index, room, wanted }) => ({ index, amount: Math.min(room, Math.floor(wanted)), remainder: wanted - Math.floor(wanted), room }));
    let rest = left - whole.reduce((sum, { amount }) => sum + amount, 0);
    const full = whole.some(({ amount, room }, at) => amount === room && (exact[at]?.wanted ?? 0) > room);
    for (const { index, amount } of whole) given[index] = (given[index] as number) + amount;
    // Where an entry is full, the others share what is left in another pass; else single rows go by remainder.
    if (!full) {
      for (const { index, amount, room } of whole.toSorted((a, b) => b.remainder - a.remainder || a.index - b.index)) {
        if (rest === 0) break;
        if (amount === room) continue;
        given[index] = (given[index] as number) + 1;
        rest -= 1;
      }
    }
    left = rest;
  }
  return given;
}
