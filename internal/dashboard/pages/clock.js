// The clock of the host. The clock of a browser may be wrong by minutes.

let ahead = 0; // milliseconds from the browser's clock to the host's

// setHostNow takes a time that the host has just sent.
export const setHostNow = (now) => (ahead = Date.parse(now) - Date.now());

// hostNow returns the host's time in milliseconds. Before the host has sent a time, it is the browser's.
export const hostNow = () => Date.now() + ahead;
