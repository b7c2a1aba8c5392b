"""Pure renderers: a Plan, a Report or an Explanation goes in, text comes out. Nothing here decides or waits."""
