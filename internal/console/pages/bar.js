// The bar on a Space's pages. A page in a frame has none.
import { mount } from "./panel.js";

if (window.top === window) mount(document.documentElement, { around: false });
