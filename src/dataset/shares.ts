/** Whole numbers in proportion to shares. */

/**
 * Gives out `count` by share (largest remainders; of equals the first), never more than an entry's
 * `most`; what one cannot take goes to the others in their proportions.
 */
export function shareOut(count: number, entries: readonly { readonly share: number; readonly most: number }[]): readonly number[] {
  const given = entries.map(() => 0);
  let open = entries.map(({ share, most }, index) => ({ share, most, index }));
  let left = count;
  for (;;) {
    const total = open.reduce((sum, { share }) => sum + share, 0);
    const wanted = open.map((entry) => ({ ...entry, exact: (left * entry.share) / total }));
    const full = wanted.filter(({ exact, most }) => exact >= most);
    if (full.length === 0) {
      for (const { index, exact } of wanted) given[index] = Math.floor(exact);
      const rest = left - wanted.reduce((sum, { exact }) => sum + Math.floor(exact), 0);
      const byRemainder = wanted.toSorted((a, b) => (b.exact % 1) - (a.exact % 1) || a.index - b.index);
      for (const { index } of byRemainder.slice(0, rest)) given[index] = (given[index] as number) + 1;
      return given;
    }
    for (const { index, most } of full) {
      given[index] = most;
      left -= most;
    }
    open = wanted.filter(({ exact, most }) => exact < most);
  }
}
