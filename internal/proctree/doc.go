// Package proctree identifies, contains and ends the process trees of Spaces.
package proctree
