"""Campaigns: many networks, memories and operating points; runs that are kept, shared out, stopped early and reported."""
